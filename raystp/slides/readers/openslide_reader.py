"""Slides that OpenSlide opens: SVS, NDPI, MRXS, SCN, DICOM, BIF, tiled TIFF.

Whatever a scan left transparent (never scanned, outside the slide, or a tile that some scanners store with no bytes) is
glass: white. A handle that has failed once stays broken in OpenSlide: every later read of it fails too, in a sentence.
"""

import contextlib
from pathlib import Path

import numpy as np
import openslide
from jaxtyping import UInt8
from PIL import Image

from raystp.errors import SlideError
from raystp.slides.readers.resample import WHITE, Box, check_region, resample, shrink, square, wide_window, window
from raystp.slides.readers.scale import SlideScale
from raystp.units import Level0Pixels, TilePixels

_ROUNDING = 1e-3
"""A level of 16,000 x 12,345 px over one of 64,000 x 49,381 has downsample 4.00004; it serves where 4 is needed."""


def open_handle(where: str, path: Path) -> openslide.OpenSlide | None:
    """Return OpenSlide's handle, or None for a format that it does not know.

    Raises SlideError for a file of a format it knows, but cannot open. `where` names the slide.
    """
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError:
        return None
    except openslide.OpenSlideError as error:
        msg = f"{where} cannot be opened: OpenSlide says {str(error)!r}"
        raise SlideError(msg) from None


def own_mpp(where: str, handle: openslide.OpenSlide) -> tuple[float, float] | None:
    """Return the slide's own um/px along x and y; None where either is missing."""
    names = (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)
    said = [handle.properties[name] for name in names if name in handle.properties]
    if len(said) < len(names):
        return None
    try:
        across, down = (float(text) for text in said)
    except ValueError:
        msg = f"{where} claims {' x '.join(said)} um/px; give one in the column `mpp` of the slide table"
        raise SlideError(msg) from None
    return across, down


class OpenSlideSlide:
    """A slide behind OpenSlide. Reads may come from many threads at once."""

    reader = "openslide"

    def __init__(
        self, name: str, handle: openslide.OpenSlide, *, where: str, scale: SlideScale, keep: contextlib.ExitStack
    ) -> None:
        self._where = where
        self._handle = handle
        self._keep = keep
        self._downsamples = [float(downsample) for downsample in handle.level_downsamples]
        self._open = True
        self.name = name
        self.width, self.height = (int(length) for length in handle.dimensions)
        self.mpp = scale.mpp
        self.mpp_from = scale.source

    def read(
        self, x: Level0Pixels, y: Level0Pixels, side: Level0Pixels, pixels: TilePixels
    ) -> UInt8[np.ndarray, "pixel pixel 3"]:
        """Return the square whose top-left corner is (x, y), as `pixels` x `pixels`; see `Slide`."""
        return self._render(square(self._where, (x, y), side, pixels), pixels, pixels)

    def thumbnail(self, longest: int) -> UInt8[np.ndarray, "row col 3"]:
        """Return the whole slide with `longest` px along its longer side; see `Slide`."""
        needed = max(self.width, self.height) / longest
        ratio = needed / self._downsamples[self._level(needed)]
        return shrink((self.width, self.height), longest, ratio, self._render)

    def close(self) -> None:
        """Give up the handle, and the local copy of a remote slide."""
        self._open = False
        self._keep.close()

    def __enter__(self) -> "OpenSlideSlide":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _level(self, needed: float) -> int:
        """Return the coarsest level that is no coarser than `needed` level-0 px per output px."""
        fine = [level for level, downsample in enumerate(self._downsamples) if downsample <= needed * (1 + _ROUNDING)]
        return max(fine, key=self._downsamples.__getitem__, default=0)

    def _render(self, box: Box, columns: int, rows: int) -> UInt8[np.ndarray, "row col 3"]:
        level = self._level(min(box.width / columns, box.height / rows))
        downsample = self._downsamples[level]
        inner = box.scaled(1.0 / downsample)
        region = wide_window(inner, columns, rows) if level else window(inner, columns, rows)
        if not box.touches(self.width, self.height):
            return np.full((rows, columns, 3), WHITE, np.uint8)
        check_region(self._where, box, region)
        # OpenSlide moves what is read from a negative place by up to a px of a level, so none is asked for.
        left, top = max(0, region.left), max(0, region.top)
        before = left - region.left, top - region.top
        # It takes the corner in whole level-0 px: what it returns begins there, up to half of one off the region.
        corner = round(left * downsample), round(top * downsample)
        pixels = self._region(corner, level, (region.width - before[0], region.height - before[1]))
        if max(before) > 0:
            pixels = np.pad(pixels, ((before[1], 0), (before[0], 0), (0, 0)), constant_values=WHITE)
        x, y = (place / downsample - added for place, added in zip(corner, before, strict=True))
        return resample(pixels, inner.moved(-x, -y), columns, rows)

    def _region(
        self, corner: tuple[int, int], level: int, size: tuple[int, int]
    ) -> UInt8[np.ndarray, "height width 3"]:
        if not self._open:
            msg = f"{self._where} is closed"
            raise SlideError(msg)
        try:
            region = self._handle.read_region(corner, level, size)
        except openslide.OpenSlideError as error:
            x, y = corner
            msg = f"{self._where} cannot be read at x {x}, y {y}, level {level}: OpenSlide says {str(error)!r}"
            raise SlideError(msg) from None
        pixels = np.asarray(region)
        if pixels[..., 3].min() == WHITE:
            return pixels[..., :3]
        glass = Image.new("RGB", size, (WHITE, WHITE, WHITE))
        glass.paste(region, mask=region.getchannel("A"))
        return np.asarray(glass)
