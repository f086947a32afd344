"""Cells of Xenium: how many are in each square, or the square of each cell, by their centroids."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float64, Int64

from raystp.errors import SectionError, some
from raystp.expression.readers.files.columns import open_columns
from raystp.expression.readers.xenium.grid import SquareGrid, grid_around
from raystp.storage import StoragePath

CENTROID = ("x_centroid", "y_centroid")
COLUMNS = ("cell_id", *CENTROID)
WHAT = f"a table of cells ({', '.join(COLUMNS)})"
MAX_CELLS = 20_000_000


def cells_in_squares(path: StoragePath, origin: str, grid: SquareGrid) -> Int64[np.ndarray, "square"]:
    """Return the number of cells in each square; cells outside of the grid, which has all transcripts, are left out."""
    count = np.zeros(len(grid), np.int64)
    for x, y, _ in _batches(path, origin):
        square = grid.square_of(x, y)
        count += np.bincount(square[square >= 0], minlength=len(grid))
    return count


@dataclass
class PlacedCells:
    """The square of each cell."""

    grid: SquareGrid
    ids: pd.Index
    squares: Int64[np.ndarray, "cell"]
    unknown: int = 0
    """Barcodes that are no cell of the table."""

    def square_of(self, barcodes: pa.StringArray) -> Int64[np.ndarray, "barcode"]:
        """Return the square of each barcode of a matrix; -1 for one that is no cell of the table."""
        row = self.ids.get_indexer(barcodes.to_pylist())
        self.unknown += int((row < 0).sum())
        return np.where(row >= 0, self.squares[row], -1)


def place_cells(path: StoragePath, origin: str, pool_um: float) -> PlacedCells:
    """Read ids and centroids; raises SectionError for another table, and for a cell that is listed twice."""
    parts = list(_batches(path, origin))
    x, y = (np.concatenate([part[side] for part in parts]) if parts else np.zeros(0) for side in (0, 1))
    ids = pd.Index([name for *_, names in parts for name in names])
    if not len(ids) or not ids.is_unique:
        fault = f"lists {int(ids.duplicated().sum())} cells more than once" if len(ids) else "has no cells"
        msg = f"{origin}: {path} {fault}"
        raise SectionError(msg)
    grid = grid_around((float(x.min()), float(y.min())), (float(x.max()), float(y.max())), pool_um, origin)
    return PlacedCells(grid, ids, grid.square_of(x, y))


def _batches(
    path: StoragePath, origin: str
) -> Iterator[tuple[Float64[np.ndarray, "cell"], Float64[np.ndarray, "cell"], list[str]]]:
    """Yield x, y and ids; an id is text, bytes, or in old files a number."""
    with open_columns(path, origin, WHAT) as table:
        absent = [name for name in COLUMNS if name not in table.names]
        if absent or table.rows > MAX_CELLS:
            fault = (
                f"has no column {some(absent)}; it has {some(list(table.names), 8)}" if absent else "has too many rows"
            )
            msg = f"{origin}: {path} is not {WHAT}: it {fault}"
            raise SectionError(msg)
        for batch in table.batches(COLUMNS):
            x, y = (
                np.asarray(batch[name].cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
                for name in CENTROID
            )
            yield x, y, batch["cell_id"].cast(pa.string()).to_pylist()
