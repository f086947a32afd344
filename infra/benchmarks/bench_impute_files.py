"""Speed of writing predictions, per CPU-second, in the forms of a cohort and in the usual one."""

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
class WriteSpeed:
    """Speed of writing one form."""

    form: str
    rate: float
    """MB of float32 per CPU-second."""
    size: float
    """Bytes over those of the float32 values."""
    bytes_per_tile: float


def time_files(folder: Path, expression: sparse.csr_array, *, rounds: int) -> list[WriteSpeed]:
    """Write means over 50 rows in each form, alternating, and print the speed of each."""
    random = np.random.default_rng(2)
    rows = random.integers(0, expression.shape[0], (TILES, K))
    weights = np.full(rows.shape, 1 / K, np.float32)
    values = in_memory(expression).share_of_sum(weights, rows)
    writers = _writers(values, rows, random.random(rows.shape, dtype=np.float32))
    times: dict[str, list[float]] = {name: [] for name in writers}
    for _ in range(rounds):
        for name, write in writers.items():
            (folder / name.replace(" ", "-")).unlink(missing_ok=True)  # so that its deletion is not timed
            start = time.process_time()
            write(folder / name.replace(" ", "-"))
            times[name].append(time.process_time() - start)
    speeds = []
    sys.stdout.write(f"{'written as':>24} {'MB per CPU-s':>12} {'size':>6} {'bytes/tile':>12}\n")
    for name in writers:
        size = (folder / name.replace(" ", "-")).stat().st_size
        rate = values.nbytes / 1e6 / statistics.median(times[name])
        speed = WriteSpeed(name, rate, size / values.nbytes, size / TILES)
        sys.stdout.write(f"{name:>24} {rate:12.0f} {speed.size:6.3f} {speed.bytes_per_tile:12.0f}\n")
        speeds.append(speed)
    sys.stdout.write(f"goal: a dense form at {GOAL_RATE:.0f} MB of float32 per CPU-s and {GOAL_SIZE} of the size\n")
    return speeds


def _writers(values: np.ndarray, rows: np.ndarray, weights: np.ndarray) -> dict[str, Callable[[Path], object]]:
    genes = [f"gene{number}" for number in range(values.shape[1])]
    names = [f"A1-{tile:06d}" for tile in range(TILES)]
    tiles = TileTable("A1", names, np.zeros((TILES, 2)), Level0Pixels(224.0))
    slide = SlidePrediction(genes, tiles, {})
    distance = np.zeros(TILES, np.float32)

    def parquet(precision: str) -> Callable[[Path], object]:
        schema = _schema(len(genes), precision)
        return lambda path: write_in_parts(slide, _parts(values), parquet=(StoragePath.of(path), schema))

    def gzip(path: Path) -> None:
        prediction_to_anndata(values, genes, tiles, provenance={}).write_h5ad(path, compression="gzip")

    return {
        "parquet float32": parquet("float32"),
        "parquet float16": parquet("float16"),
        "h5ad in parts": lambda path: write_in_parts(slide, _parts(values), h5ad=StoragePath.of(path)),
        "h5ad gzip": gzip,
        "neighbours float16": lambda path: StoragePath.of(path).write_table(
            neighbours_table(_tiles(), rows, distance, weights)
        ),
        "neighbours mean": lambda path: StoragePath.of(path).write_table(neighbours_table(_tiles(), rows, distance)),
    }


def _schema(genes: int, precision: str) -> pa.Schema:
    schema = tables.predictions(genes)
    value = {"float32": pa.float32(), "float16": pa.float16()}[precision]
    return schema.set(
        schema.get_field_index("expression"), pa.field("expression", pa.list_(value, genes), nullable=False)
    )


def _parts(values: np.ndarray) -> Iterator[PredictionPart]:
    columns: dict[str, Any] = {name: column.combine_chunks() for name, column in zip(*_tile_columns(), strict=True)}
    for start in range(0, TILES, PART):
        part = slice(start, start + PART)
        yield PredictionPart(values[part], {name: column[part] for name, column in columns.items()})


def _tile_columns() -> tuple[list[str], list[pa.ChunkedArray]]:
    table = _tiles()
    return table.column_names, table.columns


def _tiles() -> pa.Table:
    at = np.arange(TILES)
    boxes = [at % 100 * 224.0, at // 100 * 224.0, at * 0.0 + 224]
    return tables.of_columns([["A1"] * TILES, at, *boxes, [None] * TILES], tables.TILES)
