"""What stored tiles are copied onto: the tile that was asked for itself, or a window that is resampled to it.

In go the aims of a batch, one per target, and the array of its tiles, out comes that array, filled: a target is
resampled by the thread that copied the last of its window, and the window's memory goes with it.
"""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from raystp.slides.readers.resample import WHITE, Box, Window, resample
from raystp.slides.tiled.levels import Level
from raystp.slides.tiled.read_plan import Copy, ReadPlan

Pixels = UInt8[np.ndarray, "height width 3"]
Tiles = UInt8[np.ndarray, "tile row col 3"]


@dataclass(frozen=True)
class Aim:
    """What one target takes of a level."""

    level: int
    region: Window
    box: Box | None
    """The part of the region that becomes the target; None where the region is the target."""

    @property
    def bytes(self) -> int:
        """Memory for its window."""
        return self.region.width * self.region.height * 3 if self.box else 0


class Crops:
    """Targets that are filled as they are."""

    def __init__(self, tiles: Tiles) -> None:
        self._tiles = tiles
        self._shape = tiles.shape[1:] if tiles.flags.c_contiguous else ()

    def whole(self, target: int, shape: tuple[int, int, int]) -> Pixels | None:
        """Return a target's canvas for one tile; see `Canvases`."""
        return self._tiles[target] if shape == self._shape else None

    def paste(self, copies: list[Copy], stored: Pixels) -> None:
        """Copy parts of a stored tile; see `Canvases`."""
        tiles = self._tiles
        for target, top, bottom, left, right, row, row_end, column, column_end in copies:
            tiles[target, top:bottom, left:right] = stored[row:row_end, column:column_end]

    def complete(self, target: int) -> None:
        """Take note; see `Canvases`."""


class Regions:
    """Targets that are resampled, or filled as they are, as their aims say."""

    def __init__(self, tiles: Tiles, aims: Mapping[int, Aim], level: Level, plan: ReadPlan) -> None:
        self._tiles, self._aims, self._level = tiles, aims, level
        self._left = Counter(copy[0] for copy in plan.copies)
        self._windows: dict[int, Pixels] = {}
        self._lock = threading.Lock()
        for target, aim in aims.items():
            if target not in self._left or not (aim.box or _is_inside(aim.region, level)):
                tiles[target] = WHITE

    def whole(self, target: int, shape: tuple[int, int, int]) -> Pixels | None:
        """Return a target's canvas for one tile; see `Canvases`."""
        canvas = self._canvas(target)
        return canvas if canvas.shape == shape and canvas.flags.c_contiguous else None

    def _canvas(self, target: int) -> Pixels:
        aim = self._aims[target]
        if aim.box is None:
            canvas: Pixels = self._tiles[target]
            return canvas
        with self._lock:
            if target not in self._windows:
                window = np.empty((aim.region.height, aim.region.width, 3), np.uint8)
                if not _is_inside(aim.region, self._level):  # else tiles cover all of it
                    window.fill(WHITE)
                self._windows[target] = window
            return self._windows[target]

    def paste(self, copies: list[Copy], stored: Pixels) -> None:
        """Copy parts of a stored tile; see `Canvases`."""
        for target, top, bottom, left, right, row, row_end, column, column_end in copies:
            self._canvas(target)[top:bottom, left:right] = stored[row:row_end, column:column_end]
            self.complete(target)

    def complete(self, target: int) -> None:
        """Count one of a target's tiles, and resample it after the last; see `Canvases`."""
        with self._lock:
            self._left[target] -= 1
            if self._left[target]:
                return
            source = self._windows.pop(target, None)
        box = self._aims[target].box
        if source is not None and box is not None:
            self._tiles[target] = resample(source, box, self._tiles.shape[2], self._tiles.shape[1])


def _is_inside(region: Window, level: Level) -> bool:
    right, bottom = region.left + region.width, region.top + region.height
    return region.left >= 0 and region.top >= 0 and right <= level.width and bottom <= level.height
