"""Squares on the um plane of Xenium: square (row, column) begins at (column, row) times its side."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from raystp.errors import SectionError

MAX_UM = 1e10
"""Ten kilometres: whole numbers of squares stay exact."""
MAX_SQUARES = 4_000_000
"""A slide of 24 x 12 mm has 2.9 x 10^6 squares of 10 um."""


@dataclass(frozen=True)
class SquareGrid:
    """A rectangle of squares."""

    side_um: float
    first_row: int
    first_column: int
    rows: int
    columns: int

    def __len__(self) -> int:
        return self.rows * self.columns

    def square_of(self, x: Float64[np.ndarray, "place"], y: Float64[np.ndarray, "place"]) -> Int64[np.ndarray, "place"]:
        """Return the square of each place in um, or -1 outside of the rectangle."""
        row = np.floor(y / self.side_um) - self.first_row
        column = np.floor(x / self.side_um) - self.first_column
        inside = (row >= 0) & (row < self.rows) & (column >= 0) & (column < self.columns)
        return np.where(inside, row * self.columns + column, -1).astype(np.int64)

    def array_of(self, squares: Int64[np.ndarray, "square"]) -> Float64[np.ndarray, "square 2"]:
        """Return (column, row) of squares on the plane."""
        row, column = np.divmod(squares, self.columns)
        return np.column_stack([column + self.first_column, row + self.first_row]).astype(np.float64)


def grid_around(low: tuple[float, float], high: tuple[float, float], side_um: float, origin: str) -> SquareGrid:
    """Return the squares from the least to the largest (x, y) in um; raises SectionError for too many."""
    if not (np.abs([*low, *high]) < MAX_UM).all():
        msg = f"{origin}: places go from {low} to {high}, which are not all finite and below {MAX_UM:g} um"
        raise SectionError(msg)
    first_column, first_row = (int(np.floor(value / side_um)) for value in low)
    last_column, last_row = (int(np.floor(value / side_um)) for value in high)
    rows, columns = last_row - first_row + 1, last_column - first_column + 1
    if rows * columns > MAX_SQUARES:
        msg = (
            f"{origin}: places go from {low[0]:g}, {low[1]:g} to {high[0]:g}, {high[1]:g} um, which is "
            f"{rows * columns} squares of {side_um:g} um; at most {MAX_SQUARES} are read: are they in um? "
            "Else set a larger pool_um"
        )
        raise SectionError(msg)
    return SquareGrid(side_um, first_row, first_column, rows, columns)
