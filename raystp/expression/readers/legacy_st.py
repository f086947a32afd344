"""Legacy Spatial Transcriptomics (100 um spots, 200 um apart): a counts table, and a selection table with the places.

Counts: tab-separated (.gz or not), a row per spot named by its array coordinates `10x13` (x, then y), a column per
gene. Selection, as in HER2ST: `x y new_x new_y pixel_x pixel_y selected`; `pixel_x` is the COLUMN and `pixel_y` the ROW
of the full-resolution image (a published loader swaps them: 3-12 % of its crops then show bare glass). A few spots
stand in one of the two files only; they are dropped, and noted.

Without a selection, detected array coordinates such as `16.92x9.015` (mouse olfactory bulb, replicate 11) are the
places, once `spot_px` says how many pixels a step is.
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
from raystp.expression.readers.source import BarcodeMatch, Notes, SectionSource, dropped, match, settle_mpp
from raystp.expression.schema import SectionInfo, SpotPositions, make_section
from raystp.storage import StoragePath

PITCH_UM = 200.0
SPOT_DIAMETER_UM = 100.0
PLACE_COLUMNS = ("x", "y", "pixel_x", "pixel_y")

_SPOT = re.compile(r"^\s*(-?\d+(?:\.\d+)?)x(-?\d+(?:\.\d+)?)\s*$")


@dataclass(frozen=True)
class CountTable:
    """A counts table as it lies in the file."""

    spots: list[str]
    array: Float64[np.ndarray, "spot 2"]
    """(x, y) on the array, from the spots' names."""
    genes: list[str]
    counts: Float64[np.ndarray, "spot gene"]


def read_legacy_st(source: SectionSource) -> tuple[ad.AnnData, Notes]:
    """Read a section and what was dropped; um/px is 200 um over the fitted pitch, unless it was given.

    Raises SectionError where a file is not of this layout, or where nothing says where the spots are in the image.
    """
    table = _read_counts(source.counts, source.where)
    joined = _places(source, table)
    rows, xy, notes = joined.match.counts, joined.xy, joined.match.notes
    lattice = fit_lattice(joined.array, xy, SQUARE, source.where)
    mpp = settle_mpp(source, PITCH_UM / lattice.pitch_px if lattice else None, notes)
    notes["mirrored"] = bool(lattice and lattice.mirrored)
    counts = table.counts[rows]
    full = counts.sum(axis=1) != 0
    dropped(notes, "empty", [table.spots[row] for row in rows[~full]])
    section = make_section(
        counts[full],
        table.genes,
        SpotPositions(
            names=[table.spots[row] for row in rows[full]],
            xy=xy[full],
            array_row=table.array[rows[full], 1],
            array_col=table.array[rows[full], 0],
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


@dataclass(frozen=True)
class _Joined:
    match: BarcodeMatch
    array: Float64[np.ndarray, "spot 2"]
    """The array coordinates that the pitch is fitted to."""
    xy: Float64[np.ndarray, "spot 2"]


def _places(source: SectionSource, table: CountTable) -> _Joined:
    """Find the spots' places in the selection file, or compute them from their names."""
    if source.positions is not None:
        return _join_selection(source, table, source.positions)
    if source.spot_px is None:
        msg = (
            f"{source.where} has no positions: give the selection file (columns {', '.join(PLACE_COLUMNS)}), or "
            "spot_px, the pixels per array step, where the counts' rows are detected array coordinates"
        )
        raise SectionError(msg)
    every = match(table.spots, table.spots, source.where)
    return _Joined(every, table.array, (table.array - 1.0) * source.spot_px)


def _join_selection(source: SectionSource, table: CountTable, positions: StoragePath) -> _Joined:
    selection = _read_selection(positions, source.where)
    places = selection.to_numpy(np.float64)
    chosen = places[:, 4] != 0
    joined = match(_keys(table.array), _keys(places[chosen, :2]), source.where)
    dropped(joined.notes, "unselected", _keys(places[~chosen, :2]))
    places = places[chosen][joined.places]
    # The fit is to whole steps: it averages the spots' jitter out, as the published 0.686-0.689 um/px do.
    return _Joined(joined, np.rint(places[:, :2]), places[:, 2:4])


def _keys(array: Float64[np.ndarray, "spot 2"]) -> list[str]:
    """Return the join key of array coordinates, rounded first: some files of a set hold 10, others 10.02."""
    return [f"{x:.0f}x{y:.0f}" for x, y in array.tolist()]


def _read_counts(place: StoragePath, where: str) -> CountTable:
    """Read the table line by line: pandas would rename the second column of a name, and takes five times as long."""
    place.size()
    try:
        with place.local() as path, _open_text(path) as lines:
            head = next(lines, "").rstrip("\r\n").split("\t")
            cells = [line.rstrip("\r\n").partition("\t") for line in lines if line.strip()]
        if not cells:
            msg = "there are no rows below its header"
            raise ValueError(msg)
        counts = np.loadtxt([rest for _, _, rest in cells], delimiter="\t", ndmin=2, comments=None)
        genes = head[1:] if not head[0] or len(head) == counts.shape[1] + 1 else head  # R leaves the corner out
        if len(genes) != counts.shape[1]:
            msg = f"its header names {len(genes)} columns, and {counts.shape[1]} stand below it"
            raise ValueError(msg)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        msg = f"{where} is not a tab-separated table of counts: {error}"
        raise SectionError(msg) from None
    names = [name for name, _, _ in cells]
    return CountTable(names, _array_places(names, where), genes, counts)


def _open_text(path: Path) -> TextIOWrapper:
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")


def _array_places(names: list[str], where: str) -> Float64[np.ndarray, "spot 2"]:
    parts = [_SPOT.match(name) for name in names]
    strange = [name for name, part in zip(names, parts, strict=True) if part is None]
    if strange:
        msg = (
            f"{where}: rows of the counts are spots named by array coordinates, such as 10x13 (x, then y), but "
            f"{len(strange)} are named {some(strange)}"
        )
        raise SectionError(msg)
    return np.asarray([(float(part[1]), float(part[2])) for part in parts if part], dtype=np.float64)


def _read_selection(place: StoragePath, where: str) -> pd.DataFrame:
    """Read the columns that are used, as numbers; without a column `selected`, every spot is."""
    place.size()
    try:
        with place.local() as path:
            table = pd.read_csv(path, sep="\t")
    except (ValueError, OSError, EOFError, zlib.error) as error:
        msg = f"{where}: {place} is not a tab-separated table of places: {error}"
        raise SectionError(msg) from None
    absent = [name for name in PLACE_COLUMNS if name not in table.columns]
    if absent:
        seen = some([str(name) for name in table.columns], 8)
        msg = f"{where}: {place} has no column {some(absent)}; it has {seen}"
        raise SectionError(msg)
    if "selected" not in table.columns:
        table["selected"] = 1
    try:
        return table[[*PLACE_COLUMNS, "selected"]].astype(np.float64)
    except ValueError as error:
        msg = f"{where}: {place} holds something else than numbers: {error}"
        raise SectionError(msg) from None
