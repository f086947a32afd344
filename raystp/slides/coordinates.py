"""Tile boxes: around measured spots, and on a grid over tissue.

A box is (x, y, side) in level-0 px: x the column and y the row of its top-left corner. A tile of `tile_um` um as
`tile_px` px has exactly tile_um / tile_px um/px. A scan within `NATIVE_TOLERANCE` of that is read without resampling:
`tile_px` stored pixels from a whole corner.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from raystp.errors import SlideError, some
from raystp.units import Level0Pixels, Microns, MicronsPerPixel, TilePixels, is_native, target_mpp, to_level0

ROUNDING = 1e-9
"""Tolerance of tissue shares: a tile fully on tissue counts as 1.0 although its share is a sum of floats."""


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


def check_spots_inside(
    slide: str, spots: Sequence[str], centres: Float64[np.ndarray, "spot 2"], *, width: int, height: int
) -> None:
    """Raise SlideError, naming the spots, if a centre (x, y) is outside a slide of `width` x `height` px."""
    x, y = centres[:, 0], centres[:, 1]
    outside = ~_inside(x, y, width, height)
    if not outside.any():
        return
    named = [f"{spots[i]} (x {x[i]:.1f}, y {y[i]:.1f})" for i in np.flatnonzero(outside).tolist()]
    swapped = bool(_inside(y, x, width, height).all())
    hint = (
        "with x and y swapped all are inside; check the order of the position columns"
        if swapped
        else "check that this is the image of these spots"
    )
    msg = (
        f"slide {slide!r} is {width} x {height} px (columns x rows), and {len(named)} of {len(spots)} spots have their "
        f"centre outside it: {some(named)}; {hint}"
    )
    raise SlideError(msg)


def _inside(
    x: Float64[np.ndarray, " spot"], y: Float64[np.ndarray, " spot"], width: int, height: int
) -> Bool[np.ndarray, " spot"]:
    return (x >= 0) & (x < width) & (y >= 0) & (y < height)


def grid_boxes(
    mask: Bool[np.ndarray, "row col"],
    geometry: TileGeometry,
    *,
    width: int,
    height: int,
    stride: Microns | None,
    min_tissue: float,
) -> Float64[np.ndarray, "tile 3"]:
    """Return the boxes of a grid with a tissue share of at least `min_tissue`, row by row, from the left.

    `mask` covers the whole slide of `width` x `height` level-0 px at any resolution. The grid starts at (0, 0) with a
    step of `stride` um (None: the tile's side) and covers the slide. The last tiles may extend beyond its edge, and the
    part outside has no tissue. With `min_tissue` 0 and no stride each pixel of the slide is in exactly one tile.
    """
    side = geometry.level0(geometry.tile_um)
    step = geometry.level0(geometry.tile_um if stride is None else stride)
    if not step > 0:
        msg = f"stride is {stride} um; it must be above 0, or None for adjacent tiles"
        raise SlideError(msg)
    x, y = (_starts(extent, step, geometry) for extent in (width, height))
    share = _tissue_share(mask, x / width, y / height, (side / width, side / height))
    row, column = np.nonzero(share >= min_tissue - ROUNDING)
    return np.stack([x[column], y[row], np.full(len(row), side)], axis=1)


def _starts(extent: int, step: float, geometry: TileGeometry) -> Float64[np.ndarray, " corner"]:
    starts = geometry.corners(np.arange(np.ceil(extent / step - ROUNDING)) * step)
    return starts[starts < extent]


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
