"""Toy banks: rows around a few centres, of several patients, every vector and every value of expression its own."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from raystp.index.opened import ReferenceIndex, open_reference_index
from raystp.index.reference import ReferenceRows
from raystp.index.search.kinds import IndexParams, Kind
from raystp.index.search.score import Metric
from raystp.index.write import write_reference_index
from raystp.storage import StoragePath

ROWS, JOINT, GENES = 1500, 16, 3


def vectors(rows: int, seed: int) -> Any:
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((40, JOINT))
    around = centres[random.integers(0, 40, rows)] + 0.4 * random.standard_normal((rows, JOINT))
    return around.astype(np.float32)


def reference(rows: int = ROWS, seed: int = 0, patients: str = "ABC") -> ReferenceRows:
    """Rows in runs of 50 a patient, so that each is in every shard; names tell whose they are."""
    whose = [patients[row // 50 % len(patients)] for row in range(rows)]
    return ReferenceRows(
        vectors=vectors(rows, seed),
        expression=np.random.default_rng(seed + 1).random((rows, GENES), dtype=np.float32),
        genes=[f"gene{number}" for number in range(GENES)],
        sections=[f"section-of-{one}" for one in whose],
        spots=[f"spot-{one}-{row}" for row, one in enumerate(whose)],
        patients=[f"patient-{one}" for one in whose],
        more={"tissue": ["breast" if row % 3 else "skin" for row in range(rows)]},
    )


def bank_of(
    folder: Path, kind: Kind, *, shards: int = 2, metric: Metric = "cosine", **want: Any
) -> tuple[ReferenceIndex, Any]:
    """Write a bank and open it; of few rows, a small k and a target that lists can miss."""
    asked = IndexParams(kind=kind, **{"k": 10, "recall": 0.9, **want})
    described = write_reference_index(StoragePath.of(folder), reference(), shards=shards, metric=metric, want=asked)
    described = json.loads(json.dumps(described))
    return open_reference_index(StoragePath.of(folder), described), described
