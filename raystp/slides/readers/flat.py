"""Slides that are one flat image (JPEG, PNG, plain TIFF): decoded at the first read, then held in memory whole.

Three bytes a pixel stay in memory until `close`: 276 MB for a legacy ST section of 9,274 x 9,911 px.
"""

import threading

import numpy as np
from jaxtyping import UInt8

from raystp.errors import SlideError
from raystp.slides.readers.flat_image import FlatImage
from raystp.slides.readers.opened import DamagedRegion, SlideContext
from raystp.slides.readers.resample import (
    WHITE,
    Box,
    Window,
    check_region,
    resample,
    shrink_image,
    source_window,
    square_box,
)
from raystp.units import Level0Pixels, TilePixels


class FlatSlide:
    """A slide in one array. Threads may share it; the first read decodes."""

    reader = "flat"

    def __init__(self, image: FlatImage, context: SlideContext) -> None:
        self._where = context.where
        self._image = image
        self._resources = context.resources
        self._lock = threading.Lock()
        self._pixels: UInt8[np.ndarray, "row col 3"] | None = None
        self._is_open = True
        self.name, self.vendor = context.name, image.facts.kind.lower()
        self.width, self.height = image.width, image.height
        self.mpp, self.mpp_from, self.own_mpp = context.scale.mpp, context.scale.source, context.scale.own
        self.bounds, self.warnings, self.empty = context.bounds, context.warnings, context.empty
        self.damaged: list[DamagedRegion] = []

    def read(
        self, x: Level0Pixels, y: Level0Pixels, side: Level0Pixels, tile_px: TilePixels
    ) -> UInt8[np.ndarray, "pixel pixel 3"]:
        """Return the tile with top-left corner (x, y) as `tile_px` x `tile_px`; see `Slide`."""
        return self._render(square_box(self._where, (x, y), side, tile_px), tile_px, tile_px)

    def thumbnail(self, longest: int) -> UInt8[np.ndarray, "row col 3"]:
        """Return the whole slide with `longest` px along its longer side; see `Slide`."""
        return shrink_image((self.width, self.height), longest, max(self.width, self.height) / longest, self._render)

    def close(self) -> None:
        """Release the pixels, and the local copy of a remote slide."""
        with self._lock:
            self._is_open, self._pixels = False, None
        self._resources.close()

    def __enter__(self) -> "FlatSlide":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _render(self, box: Box, columns: int, rows: int) -> UInt8[np.ndarray, "row col 3"]:
        region = source_window(box, columns, rows)
        if not box.touches(self.width, self.height):
            return np.full((rows, columns, 3), WHITE, np.uint8)
        check_region(self._where, box, region)
        inner = box.moved(-float(region.left), -float(region.top))
        return resample(_crop(self._decoded(), region), inner, columns, rows)

    def _decoded(self) -> UInt8[np.ndarray, "row col 3"]:
        with self._lock:
            if not self._is_open:
                msg = f"{self._where} is closed"
                raise SlideError(msg)
            if self._pixels is None:
                self._pixels = self._image.decode()
                if self._pixels.shape != (self.height, self.width, 3):
                    msg = (
                        f"{self._where} decodes to shape {self._pixels.shape}, its header gives "
                        f"{self.width} x {self.height} px"
                    )
                    raise SlideError(msg)
            return self._pixels


def _crop(pixels: UInt8[np.ndarray, "row col 3"], region: Window) -> UInt8[np.ndarray, "height width 3"]:
    """Return a window of an image, white where it is outside."""
    height, width = pixels.shape[:2]
    left, top = max(0, region.left), max(0, region.top)
    right, bottom = min(width, region.left + region.width), min(height, region.top + region.height)
    inside = pixels[top:bottom, left:right]
    if inside.shape[:2] == (region.height, region.width):
        return inside
    padded = np.full((region.height, region.width, 3), WHITE, np.uint8)
    across, down = left - region.left, top - region.top
    padded[down : down + inside.shape[0], across : across + inside.shape[1]] = inside
    return padded
