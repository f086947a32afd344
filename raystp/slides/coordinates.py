"""Tile boxes: around measured spots, and on a grid over tissue.

A box is (x, y, side) in level-0 px: x the column and y the row of its top-left corner. A tile of `tile_um` um as
`tile_px` px has exactly tile_um / tile_px um/px. A scan within `NATIVE_TOLERANCE` of that is read without resampling:
`tile_px` stored pixels from a whole corner.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from raystp.errors import SlideError, some
from raystp.units import Level0Pixels, Microns, MicronsPerPixel, TilePixels, is_native, target_mpp, to_level0

ROUNDING = 1e-9
"""Tolerance of tissue shares: a tile fully on tissue counts as 1.0 although its share is a sum of floats."""


FAR_OUTSIDE, MANY_OUTSIDE = 1.5, 0.25
"""Spots up to more than so many times the slide's size, and more than this share of them outside: the positions are in
the pixels of a larger image."""

MAX_OUTSIDE = 0.02
"""Share of a section's spots that may have their centre outside the slide; more is another image's section."""


@dataclass(frozen=True)
class Area:
    """A rectangle of a slide in level-0 px: a whole slide, or its bounds, which are the part that was scanned."""

    x: int
    y: int
    width: int
    height: int

    @property
    def origin(self) -> tuple[int, int]:
        """The top-left corner."""
        return self.x, self.y


@dataclass(frozen=True)
class TileGeometry:
    """A tile's side in um and in px, and the um/px of its slide."""

    tile_um: Microns
    tile_px: TilePixels
    mpp: MicronsPerPixel

    @property
    def native(self) -> bool:
        """Whether tiles are read without resampling."""
        return is_native(self.mpp, target_mpp(self.tile_um, self.tile_px))

    def level0(self, length: Microns) -> Level0Pixels:
        """Return a length in um as level-0 px; without resampling `tile_um` is exactly `tile_px`."""
        if self.native:
            return Level0Pixels(length * self.tile_px / self.tile_um)
        return to_level0(length, self.mpp)

    def corners(self, corners: Float64[np.ndarray, " corner"]) -> Float64[np.ndarray, " corner"]:
        """Return corners rounded to whole px (halves up) if tiles are read without resampling, else unchanged."""
        return np.floor(corners + 0.5) if self.native else corners


def boxes_around(centres: Float64[np.ndarray, "spot 2"], geometry: TileGeometry) -> Float64[np.ndarray, "spot 3"]:
    """Return the box around each centre (x, y); the part outside the slide is read as white."""
    side = geometry.level0(geometry.tile_um)
    x, y = (geometry.corners(centres[:, axis] - side / 2.0) for axis in (0, 1))
    return np.stack([x, y, np.full(len(centres), side)], axis=1)


def boxes_of_scales(
    centres: Float64[np.ndarray, "place 2"], geometries: Sequence[TileGeometry]
) -> Float64[np.ndarray, "place scale 3"]:
    """Return concentric boxes of several sizes around each centre (x, y); each as `boxes_around` gives it."""
    return np.stack([boxes_around(centres, geometry) for geometry in geometries], axis=1)


def spots_inside(
    slide: str, spots: Sequence[str], centres: Float64[np.ndarray, "spot 2"], *, width: int, height: int
) -> Bool[np.ndarray, " spot"]:
    """Return which spots have their centre (x, y) inside a slide of `width` x `height` px.

    Raises:
        SlideError: more than `MAX_OUTSIDE` of them are outside; the message names some, and the likely cause.
    """
    x, y = centres[:, 0], centres[:, 1]
    inside = _inside(x, y, width, height)
    outside = np.flatnonzero(~inside)
    if len(outside) <= MAX_OUTSIDE * len(spots):
        return inside
    msg = (
        f"slide {slide!r} is {width} x {height} px (columns x rows), and {len(outside)} of {len(spots)} spots "
        f"({len(outside) / len(spots):.1%}, allowed are {MAX_OUTSIDE:.0%}) have their centre outside it: "
        f"{name_spots(spots, centres, outside)}; {_cause_outside(x, y, width, height)}"
    )
    raise SlideError(msg)


def name_spots(
    spots: Sequence[str], centres: Float64[np.ndarray, "spot 2"], chosen: Int64[np.ndarray, " chosen"]
) -> str:
    """Return the ids and places of chosen spots for a message."""
    return some([f"{spots[i]} (x {centres[i, 0]:.1f}, y {centres[i, 1]:.1f})" for i in chosen.tolist()])


def _cause_outside(x: Float64[np.ndarray, " spot"], y: Float64[np.ndarray, " spot"], width: int, height: int) -> str:
    if _inside(y, x, width, height).all():
        return "with x and y swapped all are inside; check the order of the position columns"
    largest = float(np.fmax(x / width, y / height).max(initial=0.0))
    if largest > FAR_OUTSIDE and np.mean(~_inside(x, y, width, height)) > MANY_OUTSIDE:
        return (
            f"they reach {largest:.3g} times the slide's size: the positions are in the pixels of a larger image, "
            "and this is a reduced copy of it"
        )
    return "check that this is the image of these spots, and that the positions are in its pixels"


def _inside(
    x: Float64[np.ndarray, " spot"], y: Float64[np.ndarray, " spot"], width: int, height: int
) -> Bool[np.ndarray, " spot"]:
    return (x >= 0) & (x < width) & (y >= 0) & (y < height)


def grid_boxes(
    mask: Bool[np.ndarray, "row col"],
    geometry: TileGeometry,
    area: Area,
    *,
    stride: Microns | None,
    min_tissue: float,
) -> Float64[np.ndarray, "tile 3"]:
    """Return the boxes of a grid with a tissue share of at least `min_tissue`, row by row, from the left.

    `mask` covers `area` at any resolution. The grid starts at (0, 0) of the slide with a step of `stride` um (None:
    the tile's side), and its tiles that touch the area count. The last tiles may extend beyond its edge, and the part
    outside has no tissue. With `min_tissue` 0 and no stride each pixel of the area is in exactly one tile.
    """
    side = geometry.level0(geometry.tile_um)
    step = geometry.level0(geometry.tile_um if stride is None else stride)
    if not step > 0:
        msg = f"stride is {stride} um; it must be above 0, or None for adjacent tiles"
        raise SlideError(msg)
    x, y = (_starts(first, extent, step, geometry) for first, extent in ((area.x, area.width), (area.y, area.height)))
    within = (x - area.x) / area.width, (y - area.y) / area.height
    share = _tissue_share(mask, *within, (side / area.width, side / area.height))
    row, column = np.nonzero(share >= min_tissue - ROUNDING)
    return np.stack([x[column], y[row], np.full(len(row), side)], axis=1)


def _starts(first: int, extent: int, step: float, geometry: TileGeometry) -> Float64[np.ndarray, " corner"]:
    side, last = geometry.level0(geometry.tile_um), first + extent
    number = np.arange(max(0, np.floor((first - side) / step)), np.ceil(last / step - ROUNDING))
    starts = geometry.corners(number * step)
    return starts[(starts < last) & (starts + side > first)]


def _tissue_share(
    mask: Bool[np.ndarray, "row col"],
    x: Float64[np.ndarray, " across"],
    y: Float64[np.ndarray, " down"],
    extent: tuple[float, float],
) -> Float64[np.ndarray, "down across"]:
    """Return the exact share of tissue under each tile; corners and extent are fractions of the image.

    The integral of an image with constant pixels is bilinear inside each pixel: four interpolated values give the sum
    under any rectangle.
    """
    rows, columns = mask.shape
    integral = np.zeros((rows + 1, columns + 1))
    integral[1:, 1:] = mask.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    bands = _interpolate(integral, (y + extent[1]) * rows) - _interpolate(integral, y * rows)
    sums = _interpolate(bands.T, (x + extent[0]) * columns) - _interpolate(bands.T, x * columns)
    share: Float64[np.ndarray, "down across"] = sums.T / (extent[0] * columns * extent[1] * rows)
    return share


def _interpolate(
    integral: Float64[np.ndarray, "edge other"], rows: Float64[np.ndarray, " at"]
) -> Float64[np.ndarray, "at other"]:
    """Return an integral at fractional rows; beyond its end, its last row."""
    last = len(integral) - 1
    rows = np.clip(rows, 0.0, last)
    below = np.minimum(rows.astype(np.int64), last - 1)
    share = (rows - below)[:, None]
    between: Float64[np.ndarray, "at other"] = integral[below] * (1.0 - share) + integral[below + 1] * share
    return between
