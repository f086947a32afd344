"""Parse legacy Spatial Transcriptomics (100 um spots): a counts table, and a selection file of positions.

Counts: a row per spot named by its array coordinates `10x13` (x, then y), a column per gene; or the same transposed.
Selection, as in HER2ST: `x y new_x new_y pixel_x pixel_y selected`; `pixel_x` is the COLUMN and `pixel_y` the ROW
of the full-resolution image (a published loader swaps them: 3-12 % of its crops then show bare glass). A few spots are
in one of the two files only; they are dropped and noted.

The 1k array has 200 um a step. The 2k array is a checkerboard: x + y has one parity, a step is 100 um.

Without a selection, detected array coordinates such as `16.92x9.015` (mouse olfactory bulb, replicate 11) are used as
positions. `spot_px` must then give the number of pixels per step.
"""

import re
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float64

from raystp.errors import SectionError, some
from raystp.expression.readers.files.delimited import read_cells, to_numbers
from raystp.expression.readers.files.folders import refuse_packed
from raystp.expression.readers.source import SectionSource
from raystp.expression.section_checks.raw import Notes, RawGenes, RawPlaces, RawSection
from raystp.expression.section_checks.technology import legacy_array
from raystp.storage import StoragePath
from raystp.storage.text_files import decode_text, find_separator

POSITION_COLUMNS = ("x", "y", "pixel_x", "pixel_y")

_SPOT_NAME = re.compile(r"^\s*X?(-?\d+(?:\.\d+)?)[x_](-?\d+(?:\.\d+)?)\s*$")
"""`10x13`; R puts an X before names that begin with a digit."""


@dataclass(frozen=True)
class CountTable:
    """A counts table as read from its file."""

    spots: list[str]
    array: Float64[np.ndarray, "spot 2"]
    """(x, y) on the array, from the spots' names."""
    genes: list[str]
    counts: Float64[np.ndarray, "spot gene"]


def parse_legacy_st(source: SectionSource, notes: Notes) -> RawSection:
    """Parse a section; raises SectionError where a file is not of this layout, or where no positions are known."""
    refuse_packed(source.counts, source.origin)
    notes["counts_from"] = source.counts.name
    table = _read_counts(source.counts, source.origin)
    places = _read_selection(source.positions, source.origin) if source.positions else _places_of_names(source, table)
    keys = _spot_names(table.array) if source.positions else table.spots
    array = places.array if places.array is not None else table.array
    return RawSection(
        counts=sp.csr_matrix(table.counts),
        spots=table.spots,
        genes=RawGenes(names=table.genes),
        places=places,
        keys=keys,
        technology=legacy_array(array),
    )


def _places_of_names(source: SectionSource, table: CountTable) -> RawPlaces:
    """Return positions computed from detected array coordinates."""
    if source.spot_px is None:
        msg = (
            f"{source.origin} has no positions: give the selection file (columns {', '.join(POSITION_COLUMNS)}), or "
            "spot_px, the pixels per array step, where the counts' rows are detected array coordinates"
        )
        raise SectionError(msg)
    return RawPlaces(names=table.spots, xy=(table.array - 1.0) * source.spot_px, array=table.array)


def _spot_names(array: Float64[np.ndarray, "spot 2"]) -> list[str]:
    """Return the names of array coordinates, rounded: in some files a coordinate is 10, in others 10.02."""
    return [f"{x:.0f}x{y:.0f}" for x, y in array.tolist()]


def _read_counts(path: StoragePath, origin: str) -> CountTable:
    """Read the table line by line: pandas would rename duplicate columns, and takes five times as long."""
    path.size()
    text = decode_text(path.read_bytes(), str(path), SectionError).replace('"', "")
    header_line, _, body = text.partition("\n")
    separator = find_separator(header_line)
    header = header_line.split(separator)
    cells = [line.rstrip(separator).partition(separator) for line in body.split("\n") if line.strip(separator + " ")]
    try:
        if not cells:
            msg = "it has no rows below its header"
            raise ValueError(msg)
        counts = np.loadtxt([rest for _, _, rest in cells], delimiter=separator, ndmin=2, comments=None)
        if len(counts) != len(cells):  # numpy leaves empty lines out
            msg = f"{len(cells) - len(counts)} of its {len(cells)} rows have a name and no counts"
            raise ValueError(msg)
        genes = header[1:] if not header[0] or len(header) == counts.shape[1] + 1 else header  # R omits the corner
        genes = genes[: counts.shape[1]] if not any(genes[counts.shape[1] :]) else genes
        if len(genes) != counts.shape[1]:
            msg = f"its header has {len(genes)} columns, its rows have {counts.shape[1]}"
            raise ValueError(msg)
    except ValueError as error:
        msg = f"{origin} is not a tab-separated table of counts: {error}"
        raise SectionError(msg) from None
    return _by_spots([name.strip() for name, _, _ in cells], [gene.strip() for gene in genes], counts, origin)


def _by_spots(rows: list[str], columns: list[str], counts: Float64[np.ndarray, "row col"], origin: str) -> CountTable:
    """Return the table with a row per spot, also where the file has a column per spot."""
    of_rows, of_columns = _array_coordinates(rows), _array_coordinates(columns)
    if len(of_rows) == len(rows):
        return CountTable(rows, np.asarray(of_rows, np.float64), columns, counts)
    if columns and len(of_columns) == len(columns):
        return CountTable(columns, np.asarray(of_columns, np.float64), rows, np.ascontiguousarray(counts.T))
    bad = [name for name in rows if _SPOT_NAME.match(name) is None]
    msg = (
        f"{origin}: rows of the counts must be named by array coordinates, such as 10x13 (x, then y), but "
        f"{len(bad)} are named {some(bad)}"
    )
    raise SectionError(msg)


def _array_coordinates(names: list[str]) -> list[tuple[float, float]]:
    parsed = [_SPOT_NAME.match(name) for name in names]
    return [(float(match[1]), float(match[2])) for match in parsed if match]


def _read_selection(path: StoragePath, origin: str) -> RawPlaces:
    """Read the columns that are used; without a column `selected`, every spot is selected."""
    refuse_packed(path, origin)
    cells = read_cells(path, POSITION_COLUMNS, "a tab-separated table of positions", origin)
    header = cells.header or []
    absent = [name for name in POSITION_COLUMNS if name not in header]
    if absent:
        msg = f"{origin}: {path} has no column {some(absent)}; it has {some(header or cells.rows[0], 8)}"
        raise SectionError(msg)
    x, y, pixel_x, pixel_y = (to_numbers(cells.column(name), name, path, origin) for name in POSITION_COLUMNS)
    # The fit is to whole steps: it averages the spots' jitter, like the published 0.686-0.689 um/px.
    array = np.rint(np.column_stack([x, y]))
    return RawPlaces(
        names=_spot_names(array),
        xy=np.column_stack([pixel_x, pixel_y]),
        in_tissue=list(cells.column("selected")) if "selected" in header else None,
        array=array,
    )
