"""Resampling: a box of a picture, given by floats, as a picture of whole pixels.

Pixel i of a picture covers [i, i + 1) along its axis. A box whose corner is whole and whose size is the output's is
copied. Any other is filtered with a triangle that reaches one source or one output pixel to either side, whichever is
larger (Pillow's BILINEAR): it antialiases when shrinking, never overshoots, and looks beyond the box, so neighbouring
tiles agree at their seam.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from raystp.errors import SlideError

WHITE = 255
"""The value of all that lies outside a slide: glass."""

MAX_REGION = 2**26
"""Source pixels that one read may decode: 256 MB as RGBA. A thumbnail is read in blocks below it."""


@dataclass(frozen=True)
class Box:
    """A rectangle, in pixels of one picture: left and top included, right and bottom not."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """Its extent along x (columns)."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Its extent along y (rows)."""
        return self.bottom - self.top

    def scaled(self, factor: float) -> "Box":
        """Return it in the pixels of a picture that is `factor` times as fine."""
        return Box(self.left * factor, self.top * factor, self.right * factor, self.bottom * factor)

    def moved(self, x: float, y: float) -> "Box":
        """Return it shifted by (x, y)."""
        return Box(self.left + x, self.top + y, self.right + x, self.bottom + y)

    def is_crop(self, columns: int, rows: int) -> bool:
        """Say whether it is `columns` x `rows` whole pixels, which need no resampling."""
        whole = float(self.left).is_integer() and float(self.top).is_integer()
        return whole and self.width == columns and self.height == rows

    def touches(self, width: int, height: int) -> bool:
        """Say whether any of a picture of `width` x `height` px lies in it."""
        return self.left < width and self.top < height and self.right > 0 and self.bottom > 0


@dataclass(frozen=True)
class Window:
    """A rectangle of whole pixels."""

    left: int
    top: int
    width: int
    height: int


def window(box: Box, columns: int, rows: int) -> Window:
    """Return the source pixels that `box` needs as `columns` x `rows` px."""
    if box.is_crop(columns, rows):
        return Window(int(box.left), int(box.top), columns, rows)
    return wide_window(box, columns, rows)


def wide_window(box: Box, columns: int, rows: int) -> Window:
    """Return the same with at least one pixel more on each side than is used, even for a crop."""
    reach_x, reach_y = math.ceil(max(1.0, box.width / columns)) + 1, math.ceil(max(1.0, box.height / rows)) + 1
    left, top = math.floor(box.left) - reach_x, math.floor(box.top) - reach_y
    right, bottom = math.ceil(box.right) + reach_x, math.ceil(box.bottom) + reach_y
    return Window(left, top, right - left, bottom - top)


def resample(
    source: UInt8[np.ndarray, "height width 3"], box: Box, columns: int, rows: int
) -> UInt8[np.ndarray, "row col 3"]:
    """Return the part of `source` in `box` (within it, in its pixels) as `columns` x `rows` px."""
    if box.is_crop(columns, rows):
        left, top = int(box.left), int(box.top)
        return np.ascontiguousarray(source[top : top + rows, left : left + columns])
    edges = (box.left, box.top, box.right, box.bottom)
    picture = Image.fromarray(np.ascontiguousarray(source))
    return np.array(picture.resize((columns, rows), Image.Resampling.BILINEAR, box=edges))


def square(where: str, corner: tuple[float, float], side: float, pixels: int) -> Box:
    """Return the box at (x, y) = `corner`; raises SlideError, naming `where`, where it is no square of pixels."""
    x, y = corner
    if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(side) and side > 0 and pixels > 0):
        msg = f"{where}: x {x}, y {y}, side {side} px as {pixels} x {pixels} px is not a square that can be read"
        raise SlideError(msg)
    return Box(x, y, x + side, y + side)


def check_region(where: str, box: Box, region: Window) -> None:
    """Raise SlideError, naming `where`, where reading `box` would decode more than `MAX_REGION` pixels."""
    if region.width * region.height > MAX_REGION:
        msg = (
            f"{where}: a read of {box.width:.0f} x {box.height:.0f} px at x {box.left:.1f}, y {box.top:.1f} decodes "
            f"{region.width} x {region.height} px, more than {MAX_REGION}; ask for a smaller side, "
            "or for a slide with coarser levels"
        )
        raise SlideError(msg)


def shrink(
    size: tuple[int, int], longest: int, ratio: float, read: Callable[[Box, int, int], UInt8[np.ndarray, "row col 3"]]
) -> UInt8[np.ndarray, "row col 3"]:
    """Return a picture of (width, height) = `size` with `longest` px along its longer side, never enlarged.

    It is read in blocks through `read(box, columns, rows)`, so that memory does not grow with the picture; `ratio` is
    how many source pixels per output pixel such a read decodes along one axis.
    """
    width, height = size
    share = min(1.0, longest / max(width, height))
    columns, rows = max(1, round(width * share)), max(1, round(height * share))
    across, down = width / columns, height / rows
    step = max(1, int(4096 / max(1.0, ratio)))
    picture = np.empty((rows, columns, 3), np.uint8)
    for top in range(0, rows, step):
        for left in range(0, columns, step):
            bottom, right = min(rows, top + step), min(columns, left + step)
            box = Box(left * across, top * down, right * across, bottom * down)
            picture[top:bottom, left:right] = read(box, right - left, bottom - top)
    return picture
