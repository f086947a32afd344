"""How fast predictions are written, per second of CPU time, in the forms that a cohort has and in the usual one."""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import sparse

from raystp import tables
from raystp.impute.neighbours import neighbours_table
from raystp.impute.stream import PredictionPart, SlidePrediction, write_in_parts
from raystp.impute.writer import TileTable, prediction_to_anndata
from raystp.index.expression.shard import in_memory
from raystp.storage import StoragePath
from raystp.units import Level0Pixels

TILES, PART, K = 3_000, 500, 50
GOAL_RATE, GOAL_SIZE = 250.0, 0.75


@dataclass(frozen=True)
class Written:
    """How fast a form is written."""

    form: str
    rate: float
    """MB of float32 per CPU-second."""
    size: float
    """Share of the float32 values' bytes."""
    bytes_a_tile: float


def written(folder: Path, bank: sparse.csr_array, *, rounds: int) -> list[Written]:
    """Write means over 50 rows in each form, in turns, and print what each took."""
    random = np.random.default_rng(2)
    rows = random.integers(0, bank.shape[0], (TILES, K))
    weights = np.full(rows.shape, 1 / K, np.float32)
    values = in_memory(bank).share_of_sum(weights, rows)
    ways = _ways(values, rows, random.random(rows.shape, dtype=np.float32))
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, write in ways.items():
            (folder / name.replace(" ", "-")).unlink(missing_ok=True)  # freeing the last round's file is no writing
            start = time.process_time()
            write(folder / name.replace(" ", "-"))
            times[name].append(time.process_time() - start)
    found = []
    sys.stdout.write(f"{'written as':>24} {'MB per CPU-s':>12} {'size':>6} {'bytes a tile':>12}\n")
    for name in ways:
        size = (folder / name.replace(" ", "-")).stat().st_size
        rate = values.nbytes / 1e6 / statistics.median(times[name])
        one = Written(name, rate, size / values.nbytes, size / TILES)
        sys.stdout.write(f"{name:>24} {rate:12.0f} {one.size:6.3f} {one.bytes_a_tile:12.0f}\n")
        found.append(one)
    sys.stdout.write(f"goal: a dense form at {GOAL_RATE:.0f} MB of float32 per CPU-s and {GOAL_SIZE} of the size\n")
    return found


def _ways(values: np.ndarray, rows: np.ndarray, weights: np.ndarray) -> dict[str, Callable[[Path], object]]:
    genes = [f"gene{number}" for number in range(values.shape[1])]
    names = [f"A1-{tile:06d}" for tile in range(TILES)]
    places = TileTable("A1", names, np.zeros((TILES, 2)), Level0Pixels(224.0))
    slide = SlidePrediction(genes, places, {})
    distance = np.zeros(TILES, np.float32)

    def parquet(precision: str) -> Callable[[Path], object]:
        schema = _schema(len(genes), precision)
        return lambda path: write_in_parts(slide, _parts(values), parquet=(StoragePath.of(path), schema))

    def gzip(path: Path) -> None:
        prediction_to_anndata(values, genes, places, provenance={}).write_h5ad(path, compression="gzip")

    return {
        "parquet float32": parquet("float32"),
        "parquet float16": parquet("float16"),
        "h5ad in parts": lambda path: write_in_parts(slide, _parts(values), h5ad=StoragePath.of(path)),
        "h5ad gzip": gzip,
        "neighbours float16": lambda path: StoragePath.of(path).write_table(
            neighbours_table(_tiles(), rows, distance, weights)
        ),
        "neighbours alike": lambda path: StoragePath.of(path).write_table(neighbours_table(_tiles(), rows, distance)),
    }


def _schema(genes: int, precision: str) -> pa.Schema:
    schema = tables.predictions(genes)
    value = {"float32": pa.float32(), "float16": pa.float16()}[precision]
    return schema.set(
        schema.get_field_index("expression"), pa.field("expression", pa.list_(value, genes), nullable=False)
    )


def _parts(values: np.ndarray) -> Iterator[PredictionPart]:
    columns: dict[str, Any] = {name: column.combine_chunks() for name, column in zip(*_named(), strict=True)}
    for start in range(0, TILES, PART):
        cut = slice(start, start + PART)
        yield PredictionPart(values[cut], {name: column[cut] for name, column in columns.items()})


def _named() -> tuple[list[str], list[pa.ChunkedArray]]:
    table = _tiles()
    return table.column_names, table.columns


def _tiles() -> pa.Table:
    at = np.arange(TILES)
    squares = [at % 100 * 224.0, at // 100 * 224.0, at * 0.0 + 224]
    return tables.of_columns([["A1"] * TILES, at, *squares, [None] * TILES], tables.TILES)
