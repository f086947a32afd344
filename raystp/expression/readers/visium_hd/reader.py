"""Parse Visium HD (Space Ranger 3 and 4): bins of one size, pooled to squares while they are read.

A bin of 2 um has no expression to speak of, so models get squares of `pool_um`. Counts are those of bins in tissue: a
raw and a filtered matrix give the same squares. um/px is `microns_per_pixel` of the scale factors.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from raystp.errors import SectionError
from raystp.expression.readers.pooled.matrix import pool_matrix
from raystp.expression.readers.source import SectionSource
from raystp.expression.readers.space_ranger import read_factors
from raystp.expression.readers.visium_hd.barcodes import parse_bins
from raystp.expression.readers.visium_hd.bins import ABSENT, IN_TISSUE, OFF_TISSUE, Squares, read_squares
from raystp.expression.readers.visium_hd.folders import DEFAULT_BIN_UM, BinFiles, find_bins
from raystp.expression.section_checks.raw import LibraryFacts, Notes, RawPlaces, RawSection
from raystp.expression.section_checks.technology import visium_hd

DEFAULT_POOL_UM = 112.0
"""A tile of 224 px at .5 um/px; a multiple of 2, 8 and 16 um."""


def parse_visium_hd(source: SectionSource, notes: Notes) -> RawSection:
    """Parse a section; raises SectionError where a file is not of this layout, and for segmented cells."""
    files = find_bins(source)
    factors = read_factors(files.factors) if files.factors is not None else {}
    bin_um = _bin_um(factors, files, source)
    factor = bins_of_square(bin_um, source)
    pool_um = factor * bin_um
    squares = read_squares(files.positions, source.origin, factor)
    _check_kinds(squares.kinds, bin_um, f"{files.positions}", source)
    if not len(squares.xy):
        msg = (
            f"{source.origin}: no square of {pool_um:g} um has half of its bins in tissue; of {squares.bins} bins "
            f"{squares.bins_in_tissue} are in tissue: set a smaller pool_um, or check the tissue detection"
        )
        raise SectionError(msg)
    join = _Join(squares, bin_um, source, files.matrix.name)
    matrix = pool_matrix(files.matrix, source.origin, len(squares.xy), join.square_of)
    _check_lost(join, files, matrix.barcodes, source)
    names = [f"{bin_um:03.0f}um_{row:05.0f}_{column:05.0f}" for column, row in squares.array.tolist()]
    notes["counts_from"] = files.matrix.name
    notes["pooled"] = f"{squares.bins_in_tissue:,} bins of {bin_um:g} um in tissue to squares of {pool_um:g} um"
    notes |= {"bin_um": bin_um, "pool_um": pool_um, "spot_shape": "square", "bins": squares.bins}
    notes |= {"bins_in_tissue": squares.bins_in_tissue, "dropped_partial_squares": squares.partial}
    notes |= {"dropped_bins_off_tissue": join.off_tissue, "dropped_bins_no_place": join.no_place}
    return RawSection(
        counts=matrix.counts,
        spots=names,
        genes=matrix.genes,
        places=RawPlaces(names=list(names), xy=squares.xy, array=squares.array),
        own_places=True,
        technology=replace(visium_hd(pool_um), name=f"Visium HD, {bin_um:g} um bins pooled to {pool_um:g} um"),
        facts=_facts(factors, factor),
        lattice_pitch_px=squares.pitch_px,
    )


def bins_of_square(bin_um: float, source: SectionSource) -> int:
    """Return the number of bins along a square's side; raises SectionError where `pool_um` is no multiple."""
    pool_um = source.options.pool_um
    if pool_um is None:
        return max(1, round(DEFAULT_POOL_UM / bin_um))
    factor = round(pool_um / bin_um)
    if factor < 1 or not math.isclose(factor * bin_um, pool_um):
        near = sorted({max(1, factor), factor + 1})
        choices = " or ".join(f"{number * bin_um:g}" for number in near)
        msg = (
            f"{source.origin}: pool_um is {pool_um:g}, no multiple of its bins of {bin_um:g} um: set pool_um to "
            f"{choices}, or another bin_um"
        )
        raise SectionError(msg)
    return factor


def _bin_um(factors: dict[str, float], files: BinFiles, source: SectionSource) -> float:
    """Return the side of the bins by the scale factors or the folder; raises SectionError if another is wanted."""
    wanted = source.options.bin_um
    stored = factors.get("bin_size_um") or files.folder_um or wanted or DEFAULT_BIN_UM
    if not stored > 0 or (wanted is not None and not math.isclose(stored, wanted)):
        msg = (
            f"{source.origin} has bins of {stored:g} um by its scale factors (bin_size_um) or its folder, and "
            f"bin_um is {wanted or DEFAULT_BIN_UM:g}: give outs, or the folder of that bin size"
        )
        raise SectionError(msg)
    return float(stored)


def _check_kinds(kinds: frozenset[tuple[int, str]], bin_um: float, where: str, source: SectionSource) -> None:
    sides, suffixes = sorted({um for um, _ in kinds}), sorted({suffix for _, suffix in kinds})
    if sides and sides != [round(bin_um)]:
        msg = f"{source.origin}: {where} has bins of {sides} um, and the section's bins are {bin_um:g} um"
        raise SectionError(msg)
    if len(suffixes) > 1:
        msg = (
            f"{source.origin}: {where} has barcodes that end in {', '.join('-' + one for one in suffixes)}: it is an "
            "aggregate of several libraries, whose bins have the same places; give the output of one"
        )
        raise SectionError(msg)


@dataclass
class _Join:
    """The square of each barcode of the matrix, and how many have none."""

    squares: Squares
    bin_um: float
    source: SectionSource
    where: str
    off_tissue: int = 0
    no_place: int = 0
    first_lost: str = ""
    kinds: frozenset[tuple[int, str]] = frozenset()

    def square_of(self, barcodes: pa.StringArray) -> Int64[np.ndarray, "barcode"]:
        names = parse_bins(barcodes, self.source.origin, self.where)
        self.kinds |= names.kinds
        _check_kinds(self.kinds, self.bin_um, self.where, self.source)
        down, across = self.squares.flags.shape
        within = (names.rows < down) & (names.columns < across)
        row, column = np.where(within, names.rows, 0), np.where(within, names.columns, 0)
        flags = np.where(within, self.squares.flags[row, column], ABSENT)
        lost = np.flatnonzero(flags == ABSENT)
        if lost.size and not self.first_lost:
            self.first_lost = str(barcodes[int(lost[0])].as_py())
        self.no_place += lost.size
        self.off_tissue += int((flags == OFF_TISSUE).sum())
        factor = self.squares.factor
        square = self.squares.row_of[row // factor, column // factor]
        return np.where(flags == IN_TISSUE, square, -1)


def _check_lost(join: _Join, files: BinFiles, barcodes: int, source: SectionSource) -> None:
    """Raise SectionError where positions are not those of the counts. A raw matrix has bins off tissue too."""
    lost = join.no_place + (join.off_tissue if files.is_filtered else 0)
    most = source.options.max_lost
    if lost > most * barcodes:
        example = f", such as {join.first_lost!r}" if join.first_lost else ""
        msg = (
            f"{source.origin}: {lost} of {barcodes} bins with counts have no position in tissue{example}: the matrix "
            f"and {files.positions.name} are of different sections, or set max_lost (now {most:g}) to accept it"
        )
        raise SectionError(msg)


def _facts(factors: dict[str, float], factor: int) -> LibraryFacts:
    """Return the scale factors, with the square in place of the bin."""
    of_bin = ("bin_size_um", "spot_diameter_fullres")
    pooled = {name: value * factor if name in of_bin else value for name, value in factors.items()}
    mpp = factors.get("microns_per_pixel")
    return LibraryFacts(factors=pooled, stored_mpp=None if mpp is None else ("microns_per_pixel", mpp), mirroring=True)
