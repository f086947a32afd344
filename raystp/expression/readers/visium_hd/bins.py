"""Read the table of bins, and group them to squares: 10^7 bins take one byte each, and squares a few numbers.

A square has `factor` x `factor` bins of the original array, whatever bins are absent. It is kept if at least half of
them are in tissue. Its centre is the mean of all its bins that the table has, in tissue or not: the place that was
measured, and with the rotation of the array against the image.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64, Int64, UInt8

from raystp.errors import SectionError, some
from raystp.expression.readers.files.columns import Columns, open_columns
from raystp.expression.readers.visium_hd.barcodes import parse_bins
from raystp.expression.section_checks.lattice import SQUARE, fit_array
from raystp.storage import StoragePath

COLUMNS = ("barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")
WHAT = f"a table of tissue positions ({', '.join(COLUMNS)})"

MAX_ARRAY = 200_000_000
"""Rows times columns of the array; 2 um bins of 11 mm are 3 x 10^7."""
MAX_SQUARES = 2_000_000
LEAST_TISSUE = 0.5
"""Least share of a square's bins in tissue."""

ABSENT, OFF_TISSUE, IN_TISSUE = 0, 1, 2


@dataclass
class Squares:
    """The squares that are kept, in order of array row and column, and which bin belongs to which."""

    factor: int
    flags: UInt8[np.ndarray, "bin_row bin_col"] = field(repr=False)
    """Of each bin: absent, off tissue or in tissue."""
    row_of: Int64[np.ndarray, "group_row group_col"] = field(repr=False)
    """Row of each square in the other fields, or -1."""
    array: Float64[np.ndarray, "square 2"]
    """(column, row) of the squares."""
    xy: Float64[np.ndarray, "square 2"]
    pitch_px: float | None
    """Distance of neighbouring squares by all their bins; None where they do not span a plane."""
    kinds: frozenset[tuple[int, str]]
    """Side in um, and suffix, of the bins' barcodes."""
    bins: int
    bins_in_tissue: int
    partial: int
    """Squares with tissue that are left out."""


def read_squares(path: StoragePath, origin: str, factor: int) -> Squares:
    """Read a table of bins twice, in batches: its extent, then its values.

    Raises SectionError for another table, bins that are listed twice, and an array that is too large.
    """
    rows, columns = _extent(path, origin)
    down, across = -(-rows // factor), -(-columns // factor)
    if rows * columns > MAX_ARRAY or down * across > MAX_SQUARES:
        msg = (
            f"{origin}: {path} has an array of {rows} x {columns} bins, which makes {down * across} squares; at most "
            f"{MAX_ARRAY} bins and {MAX_SQUARES} squares are read: set a larger pool_um"
        )
        raise SectionError(msg)
    sums = _Sums(rows, columns, factor)
    with _open(path, origin) as table:
        for batch in table.batches(COLUMNS):
            sums.add(batch, path, origin)
    if int((sums.flags != ABSENT).sum()) < sums.bins:
        msg = f"{origin}: {path} lists bins more than once: {sums.bins - int((sums.flags != ABSENT).sum())} of them"
        raise SectionError(msg)
    return sums.squares()


@dataclass
class _Sums:
    """What is added up while the table is read."""

    rows: int
    columns: int
    factor: int
    bins: int = 0
    kinds: frozenset[tuple[int, str]] = frozenset()

    def __post_init__(self) -> None:
        self.shape = (-(-self.rows // self.factor), -(-self.columns // self.factor))
        self.flags = np.zeros((self.rows, self.columns), np.uint8)
        groups = self.shape[0] * self.shape[1]
        self.count, self.inside = np.zeros(groups, np.int64), np.zeros(groups, np.int64)
        self.x, self.y = np.zeros(groups), np.zeros(groups)
        self.row, self.column = np.zeros(groups), np.zeros(groups)

    def add(self, batch: dict[str, pa.Array], path: StoragePath, origin: str) -> None:
        row, column = _whole(batch["array_row"]), _whole(batch["array_col"])
        names = parse_bins(batch["barcode"].cast(pa.string()), origin, path.name)
        if (names.rows != row).any() or (names.columns != column).any():
            at = int(np.flatnonzero((names.rows != row) | (names.columns != column))[0])
            msg = (
                f"{origin}: in {path} the barcode {batch['barcode'][at].as_py()!r} is at array_row {row[at]}, "
                f"array_col {column[at]}: barcodes of bins have both in their names, so rows are mixed up"
            )
            raise SectionError(msg)
        inside = _flags(batch["in_tissue"], path, origin)
        x, y = _floats(batch["pxl_col_in_fullres"]), _floats(batch["pxl_row_in_fullres"])
        bad = ~(np.isfinite(x) & np.isfinite(y))
        if bad.any():
            msg = f"{origin}: {path} has {int(bad.sum())} bins whose position is not finite in a part of {len(bad)}"
            raise SectionError(msg)
        self.flags[row, column] = np.where(inside, IN_TISSUE, OFF_TISSUE)
        self.bins += len(row)
        self.kinds |= names.kinds
        group = (row // self.factor) * self.shape[1] + column // self.factor
        size = len(self.count)
        self.count += np.bincount(group, minlength=size)
        self.inside += np.bincount(group[inside], minlength=size)
        self.x += np.bincount(group, weights=x, minlength=size)
        self.y += np.bincount(group, weights=y, minlength=size)
        self.row += np.bincount(group, weights=row, minlength=size)
        self.column += np.bincount(group, weights=column, minlength=size)

    def squares(self) -> Squares:
        kept = (self.inside > 0) & (self.inside >= LEAST_TISSUE * self.factor**2)
        number = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int64).reshape(self.shape)
        group = np.flatnonzero(kept)
        down, across = np.divmod(group, self.shape[1])
        xy = self._means(self.x, self.y, group)
        # The mean of bins is at the mean of their array coordinates, also in a square that has not all its bins.
        fit = fit_array(self._means(self.column, self.row, group) / self.factor, xy, SQUARE) if len(group) else None
        return Squares(
            factor=self.factor,
            flags=self.flags,
            row_of=number,
            array=np.column_stack([across, down]).astype(np.float64),
            xy=xy,
            pitch_px=None if fit is None else fit.pitch_px,
            kinds=self.kinds,
            bins=self.bins,
            bins_in_tissue=int(self.inside.sum()),
            partial=int(((self.inside > 0) & ~kept).sum()),
        )

    def _means(
        self,
        first: Float64[np.ndarray, "group"],
        second: Float64[np.ndarray, "group"],
        group: Int64[np.ndarray, "square"],
    ) -> Float64[np.ndarray, "square 2"]:
        sums = np.column_stack([first[group], second[group]])
        return np.asarray(sums / self.count[group][:, None], np.float64)


def _extent(path: StoragePath, origin: str) -> tuple[int, int]:
    most = [-1, -1]
    with _open(path, origin) as table:
        for batch in table.batches(COLUMNS[2:4]):
            for side, name in enumerate(COLUMNS[2:4]):
                values = _whole(batch[name])
                if len(values) and values.min() < 0:
                    msg = f"{origin}: {path} has {name} {values.min()}; array coordinates of bins are not below 0"
                    raise SectionError(msg)
                most[side] = max(most[side], int(values.max(initial=-1)))
    if min(most) < 0:
        msg = f"{origin}: {path} is not {WHAT}: it has no rows"
        raise SectionError(msg)
    return most[0] + 1, most[1] + 1


@contextlib.contextmanager
def _open(path: StoragePath, origin: str) -> Iterator[Columns]:
    """Open a table of bins; an exception of the block is that of the table."""
    with open_columns(path, origin, WHAT) as table:
        absent = [name for name in COLUMNS if name not in table.names]
        if absent:
            msg = (
                f"{origin}: {path} is not {WHAT}: it has no column {some(absent)}; it has {some(list(table.names), 8)}"
            )
            raise SectionError(msg)
        yield table


def _whole(values: pa.Array) -> Int64[np.ndarray, "bin"]:
    return np.asarray(values.cast(pa.int64()).to_numpy(zero_copy_only=False), np.int64)


def _floats(values: pa.Array) -> Float64[np.ndarray, "bin"]:
    return np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def _flags(values: pa.Array, path: StoragePath, origin: str) -> Bool[np.ndarray, "bin"]:
    flags = _floats(values.cast(pa.int64()) if pa.types.is_boolean(values.type) else values)
    odd = ~((flags == 0) | (flags == 1))
    if odd.any():
        msg = f"{origin}: {path} has in_tissue {pc.unique(values).to_pylist()[:5]}; expected 1 or 0 for each bin"
        raise SectionError(msg)
    return np.asarray(flags == 1, bool)
