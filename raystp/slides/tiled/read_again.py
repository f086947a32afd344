"""Predict which stored tiles are needed again after a plan: by later parts of the same call, or by the next call.

Windows of several sizes, one around the other, are read together: each size has its own rows of windows. A wrong
prediction costs a second decode, or some memory for a while.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from raystp.slides.tiled.levels import Level

Lengths = Int64[np.ndarray, " window"]

SAME_SIZE = 1.1
"""Windows whose heights differ by less than this factor belong to tiles of one size; rounding makes 1,238 and 1,239."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Rectangles of one level, one per target; they may be partly or fully outside it."""

    target: Int64[np.ndarray, " window"]
    left: Int64[np.ndarray, " window"]
    top: Int64[np.ndarray, " window"]
    width: Int64[np.ndarray, " window"]
    height: Int64[np.ndarray, " window"]

    def part(self, kept: Bool[np.ndarray, " window"] | Int64[np.ndarray, " kept"]) -> "Windows":
        """Return the windows of a mask, or of numbers in their order."""
        return Windows(self.target[kept], self.left[kept], self.top[kept], self.width[kept], self.height[kept])


def merged(parts: Sequence[Windows]) -> Windows:
    """Return the windows of several reads, in the order of their targets."""
    if len(parts) == 1 and (np.diff(parts[0].target) >= 0).all():
        return parts[0]
    fields = ("target", "left", "top", "width", "height")
    columns = [np.concatenate([np.empty(0, np.int64), *(getattr(part, field) for part in parts)]) for field in fields]
    return Windows(*columns).part(np.argsort(columns[0], kind="stable"))


@dataclass(frozen=True, eq=False)
class Ahead:
    """What follows a plan on its level."""

    later: Windows
    """Windows of later parts of the same call."""
    call: Windows
    """All windows of the call, in the order of its tiles: the next call continues them."""


def needed_again(
    level: Level, row: Int64[np.ndarray, " tile"], column: Int64[np.ndarray, " tile"], ahead: Ahead
) -> Bool[np.ndarray, " tile"]:
    """Return which stored tiles, given by row and column, later windows need or the next call probably needs."""
    needed = np.zeros(len(row), np.bool_)
    if len(ahead.later.target):
        needed |= np.isin(row * level.across + column, stored_tiles(level, ahead.later))
    bottom, right = (row + 1) * level.tile_height, (column + 1) * level.tile_width
    for windows in _sizes(ahead.call):
        needed |= _in_next_windows(windows, bottom, right)
    return needed


def stored_tiles(level: Level, windows: Windows) -> Int64[np.ndarray, " tile"]:
    """Return the stored tiles under each window, window by window; a tile under several windows is repeated."""
    _, row, column = tiles_under(level, windows)
    tiles: Int64[np.ndarray, " tile"] = row * level.across + column
    return tiles


def tiles_under(level: Level, windows: Windows) -> tuple[Lengths, Lengths, Lengths]:
    """Return each pair of a window and a stored tile under it: number of the window, row and column of the tile."""
    column, columns = _tile_range(windows.left, windows.width, level.width, level.tile_width)
    row, rows = _tile_range(windows.top, windows.height, level.height, level.tile_height)
    pairs = columns * rows
    window = np.repeat(np.arange(len(pairs)), pairs)
    within = np.arange(len(window)) - np.repeat(np.cumsum(pairs) - pairs, pairs)
    return window, row[window] + within // columns[window], column[window] + within % columns[window]


def band_bytes(level: Level, windows: Windows) -> int | None:
    """Return the memory of the stored tiles under a row of the highest windows; None if the windows have no rows."""
    if not len(windows.top):
        return 0
    if not all(_in_rows(one) for one in _sizes(windows)):
        return None
    return (-(-int(windows.height.max()) // level.tile_height) + 1) * level.row_bytes


def _in_next_windows(
    windows: Windows, bottom: Int64[np.ndarray, " tile"], right: Int64[np.ndarray, " tile"]
) -> Bool[np.ndarray, " tile"]:
    """Return which tiles, given by bottom and right end, the next windows of one size probably need.

    They are to the right of the last window, or in the next row of windows, at the distance of the closest rows so far.
    After a single row the rows are taken to be as far apart as the columns. Windows in no order, such as spots in the
    order of their names, may continue anywhere.
    """
    if not _in_rows(windows):
        return np.ones(len(bottom), np.bool_)
    last = windows.top[-1]
    lefts = windows.left[windows.top == last]
    across = _closest(lefts, int(windows.width.max()))
    down = _closest(windows.top, across if len(lefts) > 1 else int(windows.height.max()))
    needed: Bool[np.ndarray, " tile"] = bottom > last + down
    needed |= (bottom > last) & (right > lefts.max() + across)
    return needed


def _in_rows(windows: Windows) -> bool:
    """Return whether the windows come row by row, from the top."""
    return bool((np.diff(windows.top) >= 0).all())


def _closest(starts: Lengths, otherwise: int) -> int:
    """Return the least distance between different starts; `otherwise` if all are equal."""
    steps = np.diff(np.unique(starts))
    return int(steps.min()) if len(steps) else otherwise


def _sizes(windows: Windows) -> Iterator[Windows]:
    """Yield the windows of each size."""
    if len(windows.height) and windows.height.max() <= SAME_SIZE * windows.height.min():
        yield windows
        return
    heights = np.unique(windows.height)
    starts = np.flatnonzero(heights[1:] > SAME_SIZE * heights[:-1]) + 1
    size = np.searchsorted(heights[starts], windows.height, side="right")
    for number in range(len(starts) + 1 if len(heights) else 0):
        yield windows.part(size == number)


def _tile_range(start: Lengths, length: Lengths, extent: int, side: int) -> tuple[Lengths, Lengths]:
    """Return the first tile that each window overlaps along an axis, and the number of tiles."""
    low, high = np.maximum(start, 0), np.minimum(start + length, extent)
    first = low // side
    return first, np.where(high > low, (high - 1) // side - first + 1, 0)
