"""Outputs that stored tiles are copied to: the requested tile itself, or a region of a level that is resampled to it.

Both classes fill one array of tiles, one per target. The thread that copies the last part of a target's region
resamples it, and then releases the region's memory.
"""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from raystp.slides.readers.resample import WHITE, Box, Window, resample_into
from raystp.slides.tiled.levels import Level
from raystp.slides.tiled.read_plan import CopyRect, ReadPlan

Pixels = UInt8[np.ndarray, "height width 3"]
Tiles = UInt8[np.ndarray, "tile row col 3"]


@dataclass(frozen=True)
class SourceRegion:
    """The region of a level that one target needs."""

    level: int
    region: Window
    box: Box | None
    """The part of the region that is resampled to the target; None if the region is the target."""

    @property
    def buffer_bytes(self) -> int:
        """Memory for the region before it is resampled."""
        return self.region.width * self.region.height * 3 if self.box else 0


class CropOutputs:
    """Targets that are copied without resampling."""

    def __init__(self, tiles: Tiles) -> None:
        self._tiles = tiles
        self._shape = tiles.shape[1:] if tiles.flags.c_contiguous else ()

    def direct_buffer(self, target: int, shape: tuple[int, int, int]) -> Pixels | None:
        """Return a target's memory to decode into; see `OutputBuffers`."""
        return self._tiles[target] if shape == self._shape else None

    def copy(self, rects: list[CopyRect], stored: Pixels) -> None:
        """Copy parts of a stored tile; see `OutputBuffers`."""
        tiles = self._tiles
        for target, top, bottom, left, right, row, row_end, column, column_end in rects:
            tiles[target, top:bottom, left:right] = stored[row:row_end, column:column_end]

    def finish_part(self, target: int) -> None:
        """Do nothing; see `OutputBuffers`."""


class ResampledOutputs:
    """Targets that are resampled, or copied without resampling, as their source regions say."""

    def __init__(self, tiles: Tiles, regions: Mapping[int, SourceRegion], level: Level, plan: ReadPlan) -> None:
        self._tiles, self._regions, self._level = tiles, regions, level
        self._parts_left = Counter(rect[0] for rect in plan.rects)
        self._buffers: dict[int, Pixels] = {}
        self._lock = threading.Lock()
        for target, source in regions.items():
            if target not in self._parts_left or not (source.box or _is_inside(source.region, level)):
                tiles[target] = WHITE

    def direct_buffer(self, target: int, shape: tuple[int, int, int]) -> Pixels | None:
        """Return a target's memory to decode into; see `OutputBuffers`."""
        buffer = self._buffer(target)
        return buffer if buffer.shape == shape and buffer.flags.c_contiguous else None

    def _buffer(self, target: int) -> Pixels:
        source = self._regions[target]
        if source.box is None:
            tile: Pixels = self._tiles[target]
            return tile
        with self._lock:
            if target not in self._buffers:
                buffer = np.empty((source.region.height, source.region.width, 3), np.uint8)
                if not _is_inside(source.region, self._level):  # otherwise stored tiles cover all of it
                    buffer.fill(WHITE)
                self._buffers[target] = buffer
            return self._buffers[target]

    def copy(self, rects: list[CopyRect], stored: Pixels) -> None:
        """Copy parts of a stored tile; see `OutputBuffers`."""
        for target, top, bottom, left, right, row, row_end, column, column_end in rects:
            self._buffer(target)[top:bottom, left:right] = stored[row:row_end, column:column_end]
            self.finish_part(target)

    def finish_part(self, target: int) -> None:
        """Count one part of a target as done, and resample the target after the last; see `OutputBuffers`."""
        with self._lock:
            self._parts_left[target] -= 1
            if self._parts_left[target]:
                return
            buffer = self._buffers.pop(target, None)
        box = self._regions[target].box
        if buffer is not None and box is not None:
            resample_into(self._tiles[target], buffer, box)


def _is_inside(region: Window, level: Level) -> bool:
    right, bottom = region.left + region.width, region.top + region.height
    return region.left >= 0 and region.top >= 0 and right <= level.width and bottom <= level.height
