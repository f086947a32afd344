"""Slides that are one flat picture (JPEG, PNG, plain TIFF): decoded once, at the first read, and then held whole.

Three bytes a pixel stay in memory until `close`: 276 MB for a legacy ST section of 9,274 x 9,911 px.
"""

import contextlib
import threading

import numpy as np
from jaxtyping import UInt8

from raystp.errors import SlideError
from raystp.slides.readers.decode import DecodedImage
from raystp.slides.readers.resample import WHITE, Box, Window, check_region, resample, shrink, square, window
from raystp.slides.readers.scale import SlideScale
from raystp.units import Level0Pixels, TilePixels


class FlatSlide:
    """A slide behind one array. Reads may come from many threads at once; the first one decodes."""

    reader = "flat"

    def __init__(
        self, name: str, picture: DecodedImage, *, where: str, scale: SlideScale, keep: contextlib.ExitStack
    ) -> None:
        self._where = where
        self._picture = picture
        self._keep = keep
        self._lock = threading.Lock()
        self._pixels: UInt8[np.ndarray, "row col 3"] | None = None
        self._open = True
        self.name = name
        self.width, self.height = picture.width, picture.height
        self.mpp = scale.mpp
        self.mpp_from = scale.source

    def read(
        self, x: Level0Pixels, y: Level0Pixels, side: Level0Pixels, pixels: TilePixels
    ) -> UInt8[np.ndarray, "pixel pixel 3"]:
        """Return the square whose top-left corner is (x, y), as `pixels` x `pixels`; see `Slide`."""
        return self._render(square(self._where, (x, y), side, pixels), pixels, pixels)

    def thumbnail(self, longest: int) -> UInt8[np.ndarray, "row col 3"]:
        """Return the whole slide with `longest` px along its longer side; see `Slide`."""
        return shrink((self.width, self.height), longest, max(self.width, self.height) / longest, self._render)

    def close(self) -> None:
        """Give up the pixels, and the local copy of a remote slide."""
        with self._lock:
            self._open, self._pixels = False, None
        self._keep.close()

    def __enter__(self) -> "FlatSlide":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _render(self, box: Box, columns: int, rows: int) -> UInt8[np.ndarray, "row col 3"]:
        region = window(box, columns, rows)
        if not box.touches(self.width, self.height):
            return np.full((rows, columns, 3), WHITE, np.uint8)
        check_region(self._where, box, region)
        inner = box.moved(-float(region.left), -float(region.top))
        return resample(_cut(self._decoded(), region), inner, columns, rows)

    def _decoded(self) -> UInt8[np.ndarray, "row col 3"]:
        with self._lock:
            if not self._open:
                msg = f"{self._where} is closed"
                raise SlideError(msg)
            if self._pixels is None:
                self._pixels = self._picture.decode()
                if self._pixels.shape != (self.height, self.width, 3):
                    msg = f"{self._where} decodes to {self._pixels.shape}, its header says {self.width} x {self.height}"
                    raise SlideError(msg)
            return self._pixels


def _cut(pixels: UInt8[np.ndarray, "row col 3"], region: Window) -> UInt8[np.ndarray, "height width 3"]:
    """Return a window of a picture, white where it hangs over the edge."""
    height, width = pixels.shape[:2]
    left, top = max(0, region.left), max(0, region.top)
    right, bottom = min(width, region.left + region.width), min(height, region.top + region.height)
    inside = pixels[top:bottom, left:right]
    if inside.shape[:2] == (region.height, region.width):
        return inside
    canvas = np.full((region.height, region.width, 3), WHITE, np.uint8)
    across, down = left - region.left, top - region.top
    canvas[down : down + inside.shape[0], across : across + inside.shape[1]] = inside
    return canvas
