"""Read legacy Spatial Transcriptomics (100 um spots, 200 um apart): a counts table, and a selection file of positions.

Counts: tab-separated (.gz or not), a row per spot named by its array coordinates `10x13` (x, then y), a column per
gene. Selection, as in HER2ST: `x y new_x new_y pixel_x pixel_y selected`; `pixel_x` is the COLUMN and `pixel_y` the ROW
of the full-resolution image (a published loader swaps them: 3-12 % of its crops then show bare glass). A few spots are
in one of the two files only; they are dropped and noted.

Without a selection, detected array coordinates such as `16.92x9.015` (mouse olfactory bulb, replicate 11) are used as
positions. `spot_px` must then give the number of pixels per step.
"""

import gzip
import re
import zlib
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from jaxtyping import Float64

from raystp.errors import SectionError, some
from raystp.expression.readers.pitch import SQUARE, fit_lattice
from raystp.expression.readers.source import (
    BarcodeMatch,
    Notes,
    SectionSource,
    match_barcodes,
    note_dropped,
    resolve_mpp,
)
from raystp.expression.schema import SectionInfo, SpotPositions, make_section
from raystp.storage import StoragePath

PITCH_UM = 200.0
SPOT_DIAMETER_UM = 100.0
POSITION_COLUMNS = ("x", "y", "pixel_x", "pixel_y")

_SPOT_NAME = re.compile(r"^\s*(-?\d+(?:\.\d+)?)x(-?\d+(?:\.\d+)?)\s*$")


@dataclass(frozen=True)
class CountTable:
    """A counts table as read from its file."""

    spots: list[str]
    array: Float64[np.ndarray, "spot 2"]
    """(x, y) on the array, from the spots' names."""
    genes: list[str]
    counts: Float64[np.ndarray, "spot gene"]


@dataclass(frozen=True)
class _MatchedPositions:
    match: BarcodeMatch
    array: Float64[np.ndarray, "spot 2"]
    """The array coordinates that the pitch is fitted to."""
    xy: Float64[np.ndarray, "spot 2"]


def read_legacy_st(source: SectionSource) -> tuple[ad.AnnData, Notes]:
    """Read a section and what was dropped; um/px is 200 um over the fitted pitch, unless it is given.

    Raises SectionError where a file is not of this layout, or where no positions are known.
    """
    table = _read_counts(source.counts, source.origin)
    matched = _match_positions(source, table)
    rows, xy, notes = matched.match.counts, matched.xy, matched.match.notes
    lattice = fit_lattice(matched.array, xy, SQUARE, source.origin)
    mpp = resolve_mpp(source, PITCH_UM / lattice.pitch_px if lattice else None, notes)
    notes["mirrored"] = bool(lattice and lattice.mirrored)
    counts = table.counts[rows]
    nonzero = counts.sum(axis=1) != 0
    note_dropped(notes, "empty", [table.spots[row] for row in rows[~nonzero]])
    section = make_section(
        counts[nonzero],
        table.genes,
        SpotPositions(
            names=[table.spots[row] for row in rows[nonzero]],
            xy=xy[nonzero],
            array_row=table.array[rows[nonzero], 1],
            array_col=table.array[rows[nonzero], 0],
        ),
        SectionInfo(
            section=source.section,
            patient=source.patient,
            slide=source.slide,
            mpp=mpp,
            spot_diameter_um=SPOT_DIAMETER_UM,
            pitch_um=PITCH_UM,
            layout="legacy_st",
        ),
    )
    return section, notes


def _match_positions(source: SectionSource, table: CountTable) -> _MatchedPositions:
    """Match the spots with the selection file, or compute their positions from their names."""
    if source.positions is not None:
        return _match_selection(source, table, source.positions)
    if source.spot_px is None:
        msg = (
            f"{source.origin} has no positions: give the selection file (columns {', '.join(POSITION_COLUMNS)}), or "
            "spot_px, the pixels per array step, where the counts' rows are detected array coordinates"
        )
        raise SectionError(msg)
    match = match_barcodes(table.spots, table.spots, source.origin)
    return _MatchedPositions(match, table.array, (table.array - 1.0) * source.spot_px)


def _match_selection(source: SectionSource, table: CountTable, path: StoragePath) -> _MatchedPositions:
    selection = _read_selection(path, source.origin).to_numpy(np.float64)
    selected = selection[:, 4] != 0
    match = match_barcodes(_spot_names(table.array), _spot_names(selection[selected, :2]), source.origin)
    note_dropped(match.notes, "unselected", _spot_names(selection[~selected, :2]))
    matched = selection[selected][match.positions]
    # The fit is to whole steps: it averages the spots' jitter, like the published 0.686-0.689 um/px.
    return _MatchedPositions(match, np.rint(matched[:, :2]), matched[:, 2:4])


def _spot_names(array: Float64[np.ndarray, "spot 2"]) -> list[str]:
    """Return the names of array coordinates, rounded: in some files a coordinate is 10, in others 10.02."""
    return [f"{x:.0f}x{y:.0f}" for x, y in array.tolist()]


def _read_counts(path: StoragePath, origin: str) -> CountTable:
    """Read the table line by line: pandas would rename duplicate columns, and takes five times as long."""
    path.size()
    try:
        with path.local() as local, _open_text(local) as lines:
            header = next(lines, "").rstrip("\r\n").split("\t")
            cells = [line.rstrip("\r\n").partition("\t") for line in lines if line.strip()]
        if not cells:
            msg = "it has no rows below its header"
            raise ValueError(msg)
        counts = np.loadtxt([rest for _, _, rest in cells], delimiter="\t", ndmin=2, comments=None)
        genes = header[1:] if not header[0] or len(header) == counts.shape[1] + 1 else header  # R omits the corner
        if len(genes) != counts.shape[1]:
            msg = f"its header has {len(genes)} columns, its rows have {counts.shape[1]}"
            raise ValueError(msg)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        msg = f"{origin} is not a tab-separated table of counts: {error}"
        raise SectionError(msg) from None
    names = [name for name, _, _ in cells]
    return CountTable(names, _array_coordinates(names, origin), genes, counts)


def _open_text(path: Path) -> TextIOWrapper:
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")


def _array_coordinates(names: list[str], origin: str) -> Float64[np.ndarray, "spot 2"]:
    parsed = [_SPOT_NAME.match(name) for name in names]
    bad = [name for name, match in zip(names, parsed, strict=True) if match is None]
    if bad:
        msg = (
            f"{origin}: rows of the counts must be named by array coordinates, such as 10x13 (x, then y), but "
            f"{len(bad)} are named {some(bad)}"
        )
        raise SectionError(msg)
    return np.asarray([(float(match[1]), float(match[2])) for match in parsed if match], dtype=np.float64)


def _read_selection(path: StoragePath, origin: str) -> pd.DataFrame:
    """Read the columns that are used, as numbers; without a column `selected`, every spot is selected."""
    path.size()
    try:
        with path.local() as local:
            table = pd.read_csv(local, sep="\t")
    except (ValueError, OSError, EOFError, zlib.error) as error:
        msg = f"{origin}: {path} is not a tab-separated table of positions: {error}"
        raise SectionError(msg) from None
    absent = [name for name in POSITION_COLUMNS if name not in table.columns]
    if absent:
        columns = some([str(name) for name in table.columns], 8)
        msg = f"{origin}: {path} has no column {some(absent)}; it has {columns}"
        raise SectionError(msg)
    if "selected" not in table.columns:
        table["selected"] = 1
    try:
        return table[[*POSITION_COLUMNS, "selected"]].astype(np.float64)
    except ValueError as error:
        msg = f"{origin}: {path} has values that are not numbers: {error}"
        raise SectionError(msg) from None
