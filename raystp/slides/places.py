"""Where tiles lie: squares around measured spots, and a grid over tissue.

A square is (x, y, side) in level-0 px: x the column and y the row of its top-left corner. A tile of `side` um as
`pixels` px has exactly side / pixels um/px; a scan within `NATIVE_TOLERANCE` of that is read as it is, `pixels` px from
a whole corner.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from raystp.errors import SlideError, some
from raystp.units import Level0Pixels, Microns, MicronsPerPixel, TilePixels, is_native, target_mpp, to_level0

_ROUNDING = 1e-9
"""A tile wholly on tissue counts as 1.0 although its share was added up from floats."""


@dataclass(frozen=True)
class TileGeometry:
    """A tile's extent on the tissue, its pixels, and the um/px of the slide it is cut from."""

    side: Microns
    pixels: TilePixels
    mpp: MicronsPerPixel

    @property
    def native(self) -> bool:
        """Whether the slide's own pixels are the tile's."""
        return is_native(self.mpp, target_mpp(self.side, self.pixels))

    def level0(self, length: Microns) -> Level0Pixels:
        """Return a length on the tissue in level-0 px, counted as the tile's own side is."""
        if self.native:
            return Level0Pixels(length * self.pixels / self.side)
        return to_level0(length, self.mpp)

    def corners(self, corners: Float64[np.ndarray, " corner"]) -> Float64[np.ndarray, " corner"]:
        """Return corners as tiles take them: whole where native (a half goes up), else as they are."""
        return np.floor(corners + 0.5) if self.native else corners


def tiles_around(centres: Float64[np.ndarray, "spot 2"], framing: TileGeometry) -> Float64[np.ndarray, "spot 3"]:
    """Return the square around each centre (x, y); it may hang over the slide's edge, where a slide reads white."""
    side = framing.level0(framing.side)
    x, y = (framing.corners(centres[:, axis] - side / 2.0) for axis in (0, 1))
    return np.stack([x, y, np.full(len(centres), side)], axis=1)


def check_inside(
    slide: str, spots: Sequence[str], centres: Float64[np.ndarray, "spot 2"], *, width: int, height: int
) -> None:
    """Raise SlideError, naming spots, where the centre (x, y) of any lies outside a slide of `width` x `height` px."""
    x, y = centres[:, 0], centres[:, 1]
    outside = ~_inside(x, y, width, height)
    if not outside.any():
        return
    named = [f"{spots[i]} (x {x[i]:.1f}, y {y[i]:.1f})" for i in np.flatnonzero(outside).tolist()]
    swapped = bool(_inside(y, x, width, height).all())
    hint = "with x and y swapped all are inside: are they?" if swapped else "is this the image of those spots?"
    msg = (
        f"slide {slide!r} is {width} x {height} px (columns x rows), and {len(named)} of {len(spots)} spots have their "
        f"centre outside it: {some(named)}; {hint}"
    )
    raise SlideError(msg)


def _inside(
    x: Float64[np.ndarray, " spot"], y: Float64[np.ndarray, " spot"], width: int, height: int
) -> Bool[np.ndarray, " spot"]:
    return (x >= 0) & (x < width) & (y >= 0) & (y < height)


def grid(
    mask: Bool[np.ndarray, "row col"],
    framing: TileGeometry,
    *,
    width: int,
    height: int,
    stride: Microns | None,
    min_tissue: float,
) -> Float64[np.ndarray, "tile 3"]:
    """Return the squares of a grid whose share of tissue is at least `min_tissue`, row by row, from the left.

    `mask` covers the whole slide of `width` x `height` level-0 px, whatever its own size. The grid begins at (0, 0),
    with `stride` um from tile to tile (None: the tile's side), and covers the slide: the last tiles hang over its edge,
    and what is outside is no tissue. With `min_tissue` 0 and no stride, each pixel of the slide lies in one tile.
    """
    side = framing.level0(framing.side)
    step = framing.level0(framing.side if stride is None else stride)
    if not step > 0:
        msg = f"tiles {stride} um apart make no grid; the stride is above 0, or None for tiles side by side"
        raise SlideError(msg)
    x, y = (_starts(extent, step, framing) for extent in (width, height))
    share = _tissue_under(mask, x / width, y / height, (side / width, side / height))
    row, column = np.nonzero(share >= min_tissue - _ROUNDING)
    return np.stack([x[column], y[row], np.full(len(row), side)], axis=1)


def _starts(extent: int, step: float, framing: TileGeometry) -> Float64[np.ndarray, " corner"]:
    starts = framing.corners(np.arange(np.ceil(extent / step - _ROUNDING)) * step)
    return starts[starts < extent]


def _tissue_under(
    mask: Bool[np.ndarray, "row col"],
    x: Float64[np.ndarray, " across"],
    y: Float64[np.ndarray, " down"],
    extent: tuple[float, float],
) -> Float64[np.ndarray, "down across"]:
    """Return the exact share of tissue under each tile; corners and extent in shares of the picture.

    The integral of a picture that is constant within pixels is bilinear within them: four interpolated values give the
    sum under any rectangle.
    """
    rows, columns = mask.shape
    integral = np.zeros((rows + 1, columns + 1))
    integral[1:, 1:] = mask.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    bands = _at(integral, (y + extent[1]) * rows) - _at(integral, y * rows)
    sums = _at(bands.T, (x + extent[0]) * columns) - _at(bands.T, x * columns)
    share: Float64[np.ndarray, "down across"] = sums.T / (extent[0] * columns * extent[1] * rows)
    return share


def _at(
    integral: Float64[np.ndarray, "edge other"], places: Float64[np.ndarray, " place"]
) -> Float64[np.ndarray, "place other"]:
    """Return the rows of an integral at fractional places; beyond its end it stays at its last row."""
    last = len(integral) - 1
    places = np.clip(places, 0.0, last)
    below = np.minimum(places.astype(np.int64), last - 1)
    share = (places - below)[:, None]
    between: Float64[np.ndarray, "place other"] = integral[below] * (1.0 - share) + integral[below + 1] * share
    return between
