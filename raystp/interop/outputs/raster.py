"""Places of tiles as the px of a small image: one px per tile where they are on a lattice, else the nearest place.

    px of the image = first centre + (column, row) * step

Places that are not on one square lattice (spots of Visium, tiles of CLAM) get an image whose step is half their pitch.
Each of its px shows the nearest place within half a pitch, so that no place is lost.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy.spatial import cKDTree

from raystp.errors import FormatError

MAX_PX = 100_000_000
"""Most px of one channel; more are a sign of places that lie on each other."""

OFF_LATTICE_PX = 1.0
OFF_LATTICE_SHARE = 0.02
"""A centre may lie off the lattice by this many level-0 px (corners are rounded), or this share of the step."""

EMPTY = -1
"""A px without a tile."""


@dataclass(frozen=True)
class Raster:
    """Which tile each px of an image shows."""

    tile: Int64[np.ndarray, "row col"]
    """Row of the tile in the slide's arrays; -1 where there is none."""
    first: tuple[float, float]
    """Centre (x, y) of the px at row 0 and column 0, in level-0 px."""
    step: float
    """Side of a px in level-0 px."""
    method: str
    """How tiles became px, for the metadata."""


def raster_of(boxes: Float64[np.ndarray, "tile 3"], slide: str) -> Raster:
    """Return the raster of a slide's tiles.

    Raises:
        FormatError: there is no tile, or the image would have over 10^8 px.
    """
    if not len(boxes):
        msg = f"slide {slide!r} has no tile, so there is no map to draw: leave the slide out"
        raise FormatError(msg)
    centres = boxes[:, :2] + boxes[:, 2:] / 2
    if len(centres) == 1:
        return _filled(np.zeros((1, 2), np.int64), centres[0], float(boxes[0, 2]))
    pitch = _pitch(centres)
    return _lattice(centres, pitch, slide) or _nearest(centres, pitch, slide)


def _pitch(centres: Float64[np.ndarray, "tile 2"]) -> float:
    """Return the median distance to the nearest other place; places at one point count once."""
    distinct = np.unique(centres, axis=0)
    if len(distinct) == 1:
        return 1.0
    distance, _ = cKDTree(distinct).query(distinct, k=2)
    return float(np.median(distance[:, 1]))


def _lattice(centres: Float64[np.ndarray, "tile 2"], pitch: float, slide: str) -> Raster | None:
    """Return one px per tile, or None unless all tiles lie on one square lattice, each on a px of its own."""
    cells = np.column_stack([_numbered(centres[:, axis], pitch) for axis in (0, 1)])
    shifted, numbers = centres - centres.mean(axis=0), cells - cells.mean(axis=0)
    weight = float((numbers**2).sum())
    step = float((shifted * numbers).sum()) / weight if weight else pitch
    first = centres.mean(axis=0) - cells.mean(axis=0) * step
    off = np.abs(centres - first - cells * step).max()
    if off > max(OFF_LATTICE_PX, OFF_LATTICE_SHARE * step) or len(np.unique(cells, axis=0)) < len(cells):
        return None
    _check_size(cells.max(axis=0) + 1, slide)
    return _filled(cells, first, step)


def _numbered(values: Float64[np.ndarray, " tile"], pitch: float) -> Int64[np.ndarray, " tile"]:
    """Return the column (or row) of each place, from the gaps between neighbouring values.

    Gaps are rounded one by one, so a step that is known to a part of a px does not add up over a wide slide.
    """
    distinct, where = np.unique(values, return_inverse=True)
    steps = np.rint(np.diff(distinct) / pitch).astype(np.int64)
    return np.concatenate([[0], np.cumsum(steps)])[where]


def _filled(cells: Int64[np.ndarray, "tile 2"], first: Float64[np.ndarray, " 2"], step: float) -> Raster:
    columns, rows = (cells.max(axis=0) + 1).tolist()
    tile = np.full((rows, columns), EMPTY, np.int64)
    tile[cells[:, 1], cells[:, 0]] = np.arange(len(cells))
    return Raster(tile, (float(first[0]), float(first[1])), step, "one px per tile: the tiles are on a lattice")


def _nearest(centres: Float64[np.ndarray, "tile 2"], pitch: float, slide: str) -> Raster:
    """Return an image with a step of half a pitch, whose px show the nearest place within half a pitch."""
    step = pitch / 2
    first = centres.min(axis=0)
    columns, rows = (np.ceil((centres.max(axis=0) - first) / step).astype(np.int64) + 1).tolist()
    _check_size(np.asarray([columns, rows]), slide)
    tree, tile = cKDTree(centres), np.full((rows, columns), EMPTY, np.int64)
    x = first[0] + np.arange(columns) * step
    for row in range(rows):
        places = np.column_stack([x, np.full(columns, first[1] + row * step)])
        distance, found = tree.query(places, distance_upper_bound=pitch / 2 * (1 + 1e-9))
        tile[row] = np.where(np.isfinite(distance), found, EMPTY)
    method = "nearest place within half a pitch, in px of half a pitch: the places are not on a square lattice"
    return Raster(tile, (float(first[0]), float(first[1])), step, method)


def _check_size(size: Int64[np.ndarray, " 2"], slide: str) -> None:
    if float(size[0]) * float(size[1]) > MAX_PX:
        msg = (
            f"slide {slide!r}: a map of its tiles has {int(size[0])} x {int(size[1])} px, and {MAX_PX} are allowed: "
            "its places lie too close to each other; use the format csv or spatialdata"
        )
        raise FormatError(msg)
