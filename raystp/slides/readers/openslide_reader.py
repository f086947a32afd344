"""Slides that OpenSlide opens: SVS, NDPI, MRXS, SCN, DICOM, BIF, tiled TIFF.

Transparent pixels (not scanned, outside the slide, or a tile stored with no bytes) become white. An OpenSlide handle
stays broken after its first failure, so the slide is then opened again: only the damaged region fails.
"""

import threading
from functools import partial
from pathlib import Path

import numpy as np
import openslide
from jaxtyping import UInt8
from PIL import Image

from raystp.errors import SlideError
from raystp.slides.readers.opened import DAMAGED_PX, MAX_DAMAGED_REGIONS, MAX_DAMAGED_SHARE, DamagedRegion, SlideContext
from raystp.slides.readers.resample import (
    WHITE,
    Box,
    check_region,
    coarsest_level,
    resample,
    shrink_image,
    source_window,
    square_box,
    wide_window,
)
from raystp.units import Level0Pixels, TilePixels

VERSION = f"OpenSlide {openslide.__library_version__}"
"""Of the library that is loaded."""


def file_version(path: Path) -> tuple[int, int]:
    """Return the size and the time of change of a file, (0, 0) if there is none."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def vendor_of(path: Path) -> str | None:
    """Return OpenSlide's name of a file's format, `generic-tiff` for a plain tiled TIFF; None if it is unknown."""
    try:
        found: str | None = openslide.OpenSlide.detect_format(path)
    except (openslide.OpenSlideError, ValueError):  # a file that is damaged is reported when it is opened
        return None
    return found


def open_handle(where: str, path: Path) -> openslide.OpenSlide | None:
    """Return OpenSlide's handle, or None for an unknown format. `where` names the slide in errors.

    Raises:
        SlideError: OpenSlide knows the format and cannot open the file.
    """
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError:
        return None
    except openslide.OpenSlideError as error:
        msg = f"{where} cannot be opened: OpenSlide reports {str(error)!r}"
        raise SlideError(msg) from None


def slide_mpp(where: str, handle: openslide.OpenSlide, *, is_needed: bool = True) -> tuple[float, float] | None:
    """Return the slide's own um/px along x and y; None if either is missing, or no number and not needed."""
    names = (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)
    texts = [handle.properties[name] for name in names if name in handle.properties]
    if len(texts) < len(names):
        return None
    try:
        across, down = (float(text) for text in texts)
    except ValueError:
        if not is_needed:
            return None
        msg = f"{where} gives {' x '.join(texts)} um/px; set a number in the column `mpp` of the slide table"
        raise SlideError(msg) from None
    return across, down


def slide_bounds(handle: openslide.OpenSlide) -> tuple[int, int, int, int] | None:
    """Return the scanned part (x, y, width, height) in level-0 px, as far as it is inside; None if not given."""
    names = (
        openslide.PROPERTY_NAME_BOUNDS_X,
        openslide.PROPERTY_NAME_BOUNDS_Y,
        openslide.PROPERTY_NAME_BOUNDS_WIDTH,
        openslide.PROPERTY_NAME_BOUNDS_HEIGHT,
    )
    try:
        x, y, width, height = (int(handle.properties[name]) for name in names)
    except (KeyError, ValueError):
        return None
    right, bottom = min(x + width, handle.dimensions[0]), min(y + height, handle.dimensions[1])
    x, y = max(0, x), max(0, y)
    return (x, y, right - x, bottom - y) if right > x and bottom > y else None


class OpenSlideSlide:
    """A slide that OpenSlide reads. Threads may share it."""

    reader = "openslide"

    def __init__(self, handle: openslide.OpenSlide, path: Path, context: SlideContext) -> None:
        self._where = context.where
        self._first_handle = self._handle = handle
        self._path, self._version = path, file_version(path)
        self._lock = threading.Lock()
        self._resources = context.resources
        self._downsamples = [float(downsample) for downsample in handle.level_downsamples]
        self._is_open = True
        self.name, self.vendor = context.name, str(handle.properties.get(openslide.PROPERTY_NAME_VENDOR, "openslide"))
        self.width, self.height = (int(length) for length in handle.dimensions)
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
        needed = max(self.width, self.height) / longest
        ratio = needed / self._downsamples[coarsest_level(self._downsamples, needed)]
        found: list[DamagedRegion] = []
        image = shrink_image((self.width, self.height), longest, ratio, partial(self._render_readable, found))
        if sum(region.width * region.height for region in found) > MAX_DAMAGED_SHARE * self.width * self.height:
            raise SlideError(found[0].reason)
        self.damaged = found
        return image

    def close(self) -> None:
        """Release the handle, and the local copy of a remote slide."""
        self._is_open = False
        self._handle = self._first_handle  # a later one is closed when no thread uses it
        self._resources.close()

    def __enter__(self) -> "OpenSlideSlide":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _render_readable(
        self, damaged: list[DamagedRegion], box: Box, columns: int, rows: int
    ) -> UInt8[np.ndarray, "row col 3"]:
        """Return a box with white where it cannot be read, to about `DAMAGED_PX` output pixels."""
        try:
            return self._render(box, columns, rows)
        except SlideError as error:
            if not self._is_open or len(damaged) >= MAX_DAMAGED_REGIONS:
                raise
            if max(columns, rows) <= DAMAGED_PX:
                corner = round(box.left), round(box.top)
                size = round(box.right) - corner[0], round(box.bottom) - corner[1]
                damaged.append(DamagedRegion(*corner, *size, str(error)))
                return np.full((rows, columns, 3), WHITE, np.uint8)
        image = np.empty((rows, columns, 3), np.uint8)
        across, down = box.width / columns, box.height / rows
        for top, bottom in ((0, (rows + 1) // 2), ((rows + 1) // 2, rows)):
            for left, right in ((0, (columns + 1) // 2), ((columns + 1) // 2, columns)):
                if bottom > top and right > left:
                    part = Box(left * across, top * down, right * across, bottom * down).moved(box.left, box.top)
                    image[top:bottom, left:right] = self._render_readable(damaged, part, right - left, bottom - top)
        return image

    def _render(self, box: Box, columns: int, rows: int) -> UInt8[np.ndarray, "row col 3"]:
        level = coarsest_level(self._downsamples, min(box.width / columns, box.height / rows))
        downsample = self._downsamples[level]
        inner = box.scaled(1.0 / downsample)
        region = wide_window(inner, columns, rows) if level else source_window(inner, columns, rows)
        if not box.touches(self.width, self.height):
            return np.full((rows, columns, 3), WHITE, np.uint8)
        check_region(self._where, box, region)
        # OpenSlide shifts a read at negative coordinates by up to one px of the level, so reads start at 0 or above.
        left, top = max(0, region.left), max(0, region.top)
        before = left - region.left, top - region.top
        # Its corner is in whole level-0 px: the returned region starts there, up to half a level-0 px off.
        corner = round(left * downsample), round(top * downsample)
        pixels = self._region(corner, level, (region.width - before[0], region.height - before[1]))
        if max(before) > 0:
            pixels = np.pad(pixels, ((before[1], 0), (before[0], 0), (0, 0)), constant_values=WHITE)
        x, y = (start / downsample - added for start, added in zip(corner, before, strict=True))
        return resample(pixels, inner.moved(-x, -y), columns, rows)

    def _region(
        self, corner: tuple[int, int], level: int, size: tuple[int, int]
    ) -> UInt8[np.ndarray, "height width 3"]:
        if not self._is_open:
            msg = f"{self._where} is closed"
            raise SlideError(msg)
        try:
            region = self._handle.read_region(corner, level, size)
        except openslide.OpenSlideError:  # of this region, or of another one before it
            region = self._read_again(corner, level, size)
        pixels = np.asarray(region)
        if pixels[..., 3].min() == WHITE:
            return pixels[..., :3]
        background = Image.new("RGB", size, (WHITE, WHITE, WHITE))
        background.paste(region, mask=region.getchannel("A"))
        return np.asarray(background)

    def _read_again(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        """Read a region with a new handle, and leave one that is not broken for the next reads."""
        with self._lock:
            if file_version(self._path) != self._version:
                msg = f"{self._where} was replaced while it was read; run the command again when it no longer changes"
                raise SlideError(msg)
            handle = open_handle(self._where, self._path)
            if handle is None:
                msg = f"{self._where} can no longer be opened"
                raise SlideError(msg)
            try:
                region = handle.read_region(corner, level, size)
            except openslide.OpenSlideError as error:
                self._handle = open_handle(self._where, self._path) or self._first_handle
                x, y = corner
                msg = f"{self._where} cannot be read at x {x}, y {y}, level {level}: OpenSlide reports {str(error)!r}"
                raise SlideError(msg) from None
            self._handle = handle
            return region
