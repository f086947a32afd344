"""Predictions as neighbours and weights, about 300 bytes a tile, and the expression of the genes that someone asks for.

What a prediction is made of is a few rows of a bank; storing these instead of 20,000 genes is some 250 times smaller,
and any genes can be had later, from the same bank. Weights that are all alike (`mean`) need no bytes at all.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64

from raystp import tables
from raystp.errors import ModelError

WeightedSum = Callable[[np.ndarray, np.ndarray, "np.ndarray | None"], np.ndarray]
"""Weights, rows of the bank, columns of genes (None for all) -> sums: a bank's `weighted_sum`."""

_LARGEST = np.iinfo(np.int32).max


def neighbours_table(
    tiles: pa.Table,
    rows: Int64[np.ndarray, "tile k"],
    distance: Float32[np.ndarray, "tile"],
    weights: Float32[np.ndarray, "tile k"] | None = None,
    *,
    precision: str = "float16",
) -> pa.Table:
    """Return tiles (columns of `tables.TILES`) with their neighbours; no weights for neighbours that weigh alike.

    Raises ModelError for rows that int32 does not hold.
    """
    if rows.size and not 0 <= rows.min() <= rows.max() <= _LARGEST:
        msg = f"neighbours are rows {rows.min()} to {rows.max()}: rows from 0 to {_LARGEST} can be stored"
        raise ModelError(msg)
    schema = tables.neighbours(rows.shape[1], weights=None if weights is None else precision)
    columns = [tiles[name].combine_chunks() for name in tables.TILES.names]
    columns += [_lists(rows, np.int32), pa.array(distance, pa.float32())]
    if weights is not None:
        columns.append(_lists(weights, np.dtype(precision)))
    return pa.Table.from_arrays(columns, schema=schema)


def rows_and_weights(neighbours: pa.Table) -> tuple[Int64[np.ndarray, "tile k"], Float32[np.ndarray, "tile k"]]:
    """Return the rows and the weights of a table of neighbours; the weights add to 1 again, as before float16."""
    rows = _matrix(neighbours["rows"], np.int64)
    if "weights" not in neighbours.column_names:
        return rows, np.full(rows.shape, 1 / rows.shape[1], np.float32)
    weights = _matrix(neighbours["weights"], np.float32)
    return rows, np.asarray(weights / weights.sum(axis=1, keepdims=True, dtype=np.float64), np.float32)


def materialise(
    neighbours: pa.Table, weighted_sum: WeightedSum, genes: Int64[np.ndarray, "gene"] | None = None
) -> Float32[np.ndarray, "tile gene"]:
    """Return the expression of these genes (columns of the bank) or of all: what a dense prediction would have held.

    With float16 weights it is within 1e-3 of that, with float32 ones within 1e-6.
    """
    rows, weights = rows_and_weights(neighbours)
    found: np.ndarray = weighted_sum(weights, rows, genes)
    return found


def _lists(values: np.ndarray, dtype: np.dtype[Any] | type) -> pa.FixedSizeListArray:
    flat = pa.array(np.ascontiguousarray(values, dtype).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _matrix(column: pa.ChunkedArray, dtype: type) -> np.ndarray:
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype).reshape(-1, column.type.list_size)
