"""Count transcripts by square and gene, one batch of rows at a time: files have 2 to 30 GB."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from jaxtyping import Bool, Float64, Int64

from raystp.errors import SectionError, some
from raystp.expression.readers.files.columns import Columns, open_columns
from raystp.expression.readers.pooled.sums import SparseSum
from raystp.expression.readers.xenium.features import MAX_FEATURES, Features
from raystp.expression.readers.xenium.grid import SquareGrid, grid_around
from raystp.storage import StoragePath

LEAST_QV = 20.0
"""Phred quality of a decoded transcript; the instrument's own matrix has no others."""
PLACE = ("x_location", "y_location")
COLUMNS = (*PLACE, "feature_name", "qv")
IS_GENE = "is_gene"
WHAT = f"a table of transcripts ({', '.join(COLUMNS)})"


@dataclass(frozen=True)
class TranscriptCounts:
    """Counts of all squares of the grid."""

    grid: SquareGrid
    counts: sp.csr_matrix
    """Squares x features; only genes have counts."""
    counted: int
    low_quality: int
    """Transcripts with a lower qv."""
    controls: int
    """Transcripts of good quality that are of no gene."""


def count_transcripts(path: StoragePath, origin: str, features: Features, pool_um: float) -> TranscriptCounts:
    """Count transcripts of good quality; `features` gets the names that it does not have.

    Raises SectionError for another table, and for places that are not finite.
    """
    with open_columns(path, origin, WHAT, as_dictionary="feature_name") as table:
        absent = [name for name in COLUMNS if name not in table.names]
        if absent:
            msg = (
                f"{origin}: {path} is not {WHAT}: it has no column {some(absent)}; it has {some(list(table.names), 8)}"
            )
            raise SectionError(msg)
        if not table.rows:
            msg = "it has no rows"
            raise ValueError(msg)
        grid = grid_around(*_extent(table), pool_um, origin)
        total = SparseSum(len(grid), max(MAX_FEATURES, len(features.names)))
        seen = np.zeros(3, np.int64)
        wanted = (*COLUMNS, IS_GENE) if IS_GENE in table.names else COLUMNS
        for batch in table.batches(wanted):
            good = _floats(batch["qv"]) >= LEAST_QV
            column, genes = _columns_of(batch["feature_name"], features)
            if IS_GENE in batch:
                genes &= np.asarray(batch[IS_GENE].cast(pa.bool_()).to_numpy(zero_copy_only=False), bool)
            kept = good & genes
            x, y = (_floats(batch[name])[kept] for name in PLACE)
            square = grid.square_of(x, y)
            total.add(square, column[kept], np.ones(len(square)))
            seen += [int(kept.sum()), int((~good).sum()), int((good & ~genes).sum())]
        counts = total.finish()[:, : len(features.names)]
    counted, low_quality, controls = seen.tolist()
    if not counted:
        msg = (
            f"{origin}: none of the {table.rows} transcripts of {path} is of a gene with a qv of at least {LEAST_QV:g}"
        )
        raise SectionError(msg)
    return TranscriptCounts(grid, counts, counted, low_quality, controls)


def _columns_of(names: pa.Array, features: Features) -> tuple[Int64[np.ndarray, "row"], Bool[np.ndarray, "row"]]:
    """Return the column of each row's feature, and whether it is a gene."""
    if not pa.types.is_dictionary(names.type):
        msg = f"feature_name is {names.type}, not text"
        raise ValueError(msg)
    names.validate(full=True)  # a damaged file may have numbers beyond its texts
    texts = names.dictionary.cast(pa.string()).to_pylist()
    column = np.asarray([features.column(text) for text in texts], np.int64)
    gene = np.asarray([features.is_gene(number) for number in column.tolist()], bool)
    number = names.indices.to_numpy(zero_copy_only=False)
    return column[number], gene[number]


def _extent(table: Columns) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the least and the largest (x, y) of all rows.

    The places are read for it: pyarrow ends the process where the statistics of a file are damaged.
    """
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for batch in table.batches(PLACE):
        values = np.column_stack([_floats(batch[name]) for name in PLACE])
        low, high = np.minimum(low, values.min(axis=0)), np.maximum(high, values.max(axis=0))
    return (float(low[0]), float(low[1])), (float(high[0]), float(high[1]))


def _floats(values: pa.Array) -> Float64[np.ndarray, "row"]:
    return np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
