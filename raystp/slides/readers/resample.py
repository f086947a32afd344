"""Resample a box of an image, given in floats, to whole output pixels.

Pixel i of an image covers [i, i + 1) along its axis. A box with a whole corner and the output's size is copied. Any
other box is filtered with a triangle (Pillow's BILINEAR), which reaches one source pixel or one output pixel to each
side, whichever is larger. The filter antialiases and never overshoots. It reads beyond the box, so neighbouring tiles
agree at their shared edge. It filters rows first and then columns, and rounds to whole values after each.

The first tiles of a process are resampled by Pillow, later ones by a faster kernel (`triangle`) to the same values.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from raystp.errors import SlideError
from raystp.slides.readers.kernels import LateKernel

WHITE = 255
"""The value of all pixels outside a slide."""

MAX_REGION = 2**26
"""Source pixels that one read may decode: 256 MB as RGBA. Thumbnails are read in blocks below this."""

LEVEL_ROUNDING = 1e-3
"""A level of 16,000 x 12,345 px over one of 64,000 x 49,381 has downsample 4.00004; it counts as 4."""

BLOCK_SIDE = 4096
"""Source pixels along one axis of a block of a thumbnail."""

PILLOW_TILES = 512
"""Tiles of a process that Pillow resamples, in about the time that loading the kernel takes."""

LEAST_SIDE = 16
"""Rows and columns below which Pillow is used: the kernel works on blocks of 16."""

Filter = Callable[
    [UInt8[np.ndarray, "height width 3"], tuple[float, float, float, float], UInt8[np.ndarray, "row col 3"]], None
]
"""Fills an image from a source and a box in it: left, top, right, bottom. Rows of both may have any distance."""


def _load() -> Filter:
    from raystp.slides.readers.triangle import load_filter  # noqa: PLC0415 -- it imports numba

    return load_filter()


FILTER = LateKernel(_load, after=PILLOW_TILES)


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of one image: left and top included, right and bottom excluded."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """Extent along x (columns)."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Extent along y (rows)."""
        return self.bottom - self.top

    def scaled(self, factor: float) -> "Box":
        """Return the box in pixels of an image with `factor` times the resolution."""
        return Box(self.left * factor, self.top * factor, self.right * factor, self.bottom * factor)

    def moved(self, x: float, y: float) -> "Box":
        """Return the box shifted by (x, y)."""
        return Box(self.left + x, self.top + y, self.right + x, self.bottom + y)

    def is_crop(self, columns: int, rows: int) -> bool:
        """Return whether the box is `columns` x `rows` whole pixels, which need no resampling."""
        whole = float(self.left).is_integer() and float(self.top).is_integer()
        return whole and self.width == columns and self.height == rows

    def touches(self, width: int, height: int) -> bool:
        """Return whether the box overlaps an image of `width` x `height` px."""
        return self.left < width and self.top < height and self.right > 0 and self.bottom > 0


@dataclass(frozen=True)
class Window:
    """A rectangle of whole pixels."""

    left: int
    top: int
    width: int
    height: int


def source_window(box: Box, columns: int, rows: int) -> Window:
    """Return the source pixels that `box` needs as `columns` x `rows` px."""
    if box.is_crop(columns, rows):
        return Window(int(box.left), int(box.top), columns, rows)
    return wide_window(box, columns, rows)


def wide_window(box: Box, columns: int, rows: int) -> Window:
    """Return the same with at least one more pixel than needed on each side, also for a crop."""
    reach_x, reach_y = math.ceil(max(1.0, box.width / columns)) + 1, math.ceil(max(1.0, box.height / rows)) + 1
    left, top = math.floor(box.left) - reach_x, math.floor(box.top) - reach_y
    right, bottom = math.ceil(box.right) + reach_x, math.ceil(box.bottom) + reach_y
    return Window(left, top, right - left, bottom - top)


def coarsest_level(downsamples: Sequence[float], needed: float) -> int:
    """Return the coarsest level with at most `needed` level-0 px per px; 0 if there is none."""
    fine = [level for level, downsample in enumerate(downsamples) if downsample <= needed * (1 + LEVEL_ROUNDING)]
    return max(fine, key=downsamples.__getitem__, default=0)


def resample(
    source: UInt8[np.ndarray, "height width 3"], box: Box, columns: int, rows: int
) -> UInt8[np.ndarray, "row col 3"]:
    """Return the part of `source` in `box` (in its pixels, inside it) as `columns` x `rows` px."""
    image = np.empty((rows, columns, 3), np.uint8)
    resample_into(image, source, box)
    return image


def resample_into(image: UInt8[np.ndarray, "row col 3"], source: UInt8[np.ndarray, "height width 3"], box: Box) -> None:
    """Fill `image` with the part of `source` in `box` (in its pixels, inside it)."""
    rows, columns = image.shape[:2]
    if box.is_crop(columns, rows):
        left, top = int(box.left), int(box.top)
        image[:] = source[top : top + rows, left : left + columns]
        return
    source = np.ascontiguousarray(source)
    kernel = FILTER.use() if _fits_kernel(image, source, box) else None
    if kernel is None:
        image[:] = resample_with_pillow(source, box, columns, rows)
    else:
        kernel(source, (box.left, box.top, box.right, box.bottom), image)


def _fits_kernel(image: UInt8[np.ndarray, "row col 3"], source: UInt8[np.ndarray, "height width 3"], box: Box) -> bool:
    (height, width), (_, columns) = source.shape[:2], image.shape[:2]
    is_inside = box.left >= 0 and box.top >= 0 and box.right <= width and box.bottom <= height
    return is_inside and min(height, width, columns) >= LEAST_SIDE and image.strides[1:] == (3, 1)


def resample_with_pillow(
    source: UInt8[np.ndarray, "height width 3"], box: Box, columns: int, rows: int
) -> UInt8[np.ndarray, "row col 3"]:
    """Return the same as `resample`, by Pillow; each axis in one call, because from Pillow 13 on the order varies."""
    height = source.shape[0]
    image = Image.fromarray(np.ascontiguousarray(source))
    narrow = image.resize((columns, height), Image.Resampling.BILINEAR, box=(box.left, 0, box.right, height))
    return np.array(narrow.resize((columns, rows), Image.Resampling.BILINEAR, box=(0, box.top, columns, box.bottom)))


def square_box(where: str, corner: tuple[float, float], side: float, tile_px: int) -> Box:
    """Return the box of `side` px at (x, y) = `corner`; raise SlideError, naming `where`, if it cannot be read."""
    x, y = corner
    if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(side) and side > 0 and tile_px > 0):
        msg = f"{where}: x {x}, y {y}, side {side} px as {tile_px} x {tile_px} px is not a tile that can be read"
        raise SlideError(msg)
    return Box(x, y, x + side, y + side)


def check_region(where: str, box: Box, region: Window) -> None:
    """Raise SlideError, naming `where`, if reading `box` decodes more than `MAX_REGION` pixels."""
    if region.width * region.height > MAX_REGION:
        msg = (
            f"{where}: a read of {box.width:.0f} x {box.height:.0f} px at x {box.left:.1f}, y {box.top:.1f} decodes "
            f"{region.width} x {region.height} px, more than {MAX_REGION}; use a smaller tile, "
            "or a slide with coarser levels"
        )
        raise SlideError(msg)


def shrink_image(
    size: tuple[int, int], longest: int, ratio: float, read: Callable[[Box, int, int], UInt8[np.ndarray, "row col 3"]]
) -> UInt8[np.ndarray, "row col 3"]:
    """Return an image of (width, height) = `size` with `longest` px along its longer side, never enlarged.

    It is read in blocks through `read(box, columns, rows)`, so memory does not grow with the image. `ratio` is the
    number of source pixels that such a read decodes per output pixel along one axis.
    """
    width, height = size
    share = min(1.0, longest / max(width, height))
    columns, rows = max(1, round(width * share)), max(1, round(height * share))
    across, down = width / columns, height / rows
    step = max(1, int(BLOCK_SIDE / max(1.0, ratio)))
    image = np.empty((rows, columns, 3), np.uint8)
    for top in range(0, rows, step):
        for left in range(0, columns, step):
            bottom, right = min(rows, top + step), min(columns, left + step)
            box = Box(left * across, top * down, right * across, bottom * down)
            image[top:bottom, left:right] = read(box, right - left, bottom - top)
    return image
