"""Counts of a finished simulated run: records lost and doubled, rows, digests and vectors of a sample."""

import hashlib
import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from simulated.cohort import signature

from raystp import tables
from raystp.artifacts import Artifact
from raystp.cluster.streams.units import WorkUnit
from raystp.steps.embed.step import plan_units

THREADS = 8


def verified(artifact: Artifact, counts: dict[str, int], unit_tiles: int, sample: int) -> dict[str, Any]:
    """Compare the artifact with the plan of its units; each number of faults must be 0."""
    units = {unit.unit: unit for unit in plan_units(counts, unit_tiles)}
    records = [name.removesuffix(".json") for name in (artifact.path / "commits").names()]
    files = [name.removesuffix(".parquet").rpartition("/")[2] for name in (artifact.path / "embeddings").files()]
    noted = [unit for listed in artifact.manifest.notes["units"].values() for unit in listed]
    chosen = random.Random(0).sample(sorted(units), min(sample, len(units)))
    with ThreadPoolExecutor(THREADS) as pool:
        rows = list(pool.map(lambda unit: _rows(artifact, unit), records))
        wrong = sum(pool.map(lambda unit: not _is_right(artifact, units[unit]), chosen))
    return {
        "units": len(units),
        "tiles": sum(counts.values()),
        "rows_of_records": sum(rows),
        "rows_wrong": sum(row != units[unit].rows for unit, row in zip(records, rows, strict=True) if unit in units),
        "records_lost": len(units.keys() - set(records)),
        "records_doubled": _doubled(records) + len(set(records) - units.keys()),
        "files_lost": len(units.keys() - set(files)),
        "files_doubled": _doubled(files) + len(set(files) - units.keys()),
        "noted_lost": len(units.keys() - set(noted)),
        "noted_doubled": _doubled(noted),
        "read": len(chosen),
        "read_wrong": wrong,
        "markers_left": len((artifact.path / "attempts").names()),
        "failures": artifact.manifest.failures,
    }


def computed(notes: Path) -> Counter[str]:
    """Return how often each unit was computed, from the files of all processes."""
    return Counter(line for file in notes.glob("computed-*.txt") for line in file.read_text("ascii").split())


def _doubled(names: list[str]) -> int:
    return len(names) - len(set(names))


def _rows(artifact: Artifact, unit: str) -> int:
    return int(json.loads((artifact.path / "commits" / f"{unit}.json").read_bytes())["rows"])


def _is_right(artifact: Artifact, unit: WorkUnit) -> bool:
    """Return whether a unit's file has its record's digest, its own tiles in order, and its own vectors."""
    record = json.loads((artifact.path / "commits" / f"{unit.unit}.json").read_bytes())
    file = artifact.path / "embeddings" / unit.slide / f"{unit.unit}.parquet"
    if hashlib.sha256(file.read_bytes()).hexdigest() != record["sha256"]:
        return False
    table = file.read_table()
    vectors = tables.matrix(table["vector"])
    own = np.arange(unit.first, unit.first + unit.rows)
    return bool(np.array_equal(table["tile"].to_numpy(), own) and (vectors == np.array(signature(unit.unit))).all())
