"""Plan reads: the stored tiles that a batch of windows needs, each once, and the rectangles to copy from each.

Windows are in pixels of one level. Stored tiles come in the file's order (row by row). A batch decodes every stored
tile once, whatever the order of its windows and their position on the level's tile grid.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from raystp.slides.tiled.levels import Level

CopyRect = tuple[int, int, int, int, int, int, int, int, int]
"""Target; its rows from and to, columns from and to; the stored tile's rows from and to, columns from and to."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Rectangles of one level, one per target; they may be partly or fully outside it."""

    target: Int64[np.ndarray, " window"]
    left: Int64[np.ndarray, " window"]
    top: Int64[np.ndarray, " window"]
    width: Int64[np.ndarray, " window"]
    height: Int64[np.ndarray, " window"]


@dataclass(frozen=True)
class ReadPlan:
    """Stored tiles in the file's order; `rects[starts[i]:starts[i + 1]]` are copied from `tiles[i]`."""

    tiles: list[int]
    starts: list[int]
    rects: list[CopyRect]
    is_whole: list[bool]
    """Whether all of the stored tile is copied, once."""
    needed_again: list[bool]
    """Whether the next batch, if it continues below or to the right of this one, probably needs the stored tile."""


def make_read_plan(level: Level, windows: Windows) -> ReadPlan:
    """Return the tiles to decode and the rectangles to copy for all windows of a level."""
    column, columns = _tile_range(windows.left, windows.width, level.width, level.tile_width)
    row, rows = _tile_range(windows.top, windows.height, level.height, level.tile_height)
    pairs = columns * rows
    window = np.repeat(np.arange(len(pairs)), pairs)  # of each pair of a window and a stored tile
    within = np.arange(len(window)) - np.repeat(np.cumsum(pairs) - pairs, pairs)
    row, column = row[window] + within // columns[window], column[window] + within % columns[window]
    tile = row * level.across + column
    order = np.argsort(tile, kind="stable")
    window, tile, row, column = window[order], tile[order], row[order], column[order]
    heights, widths = (level.height, level.tile_height), (level.width, level.tile_width)
    down = _overlap(windows.top[window], windows.height[window], row * level.tile_height, heights)
    right = _overlap(windows.left[window], windows.width[window], column * level.tile_width, widths)
    starts = np.flatnonzero(np.diff(tile, prepend=-1))
    copied = (down[1] - down[0]) * (right[1] - right[0])
    again = _needed_again(windows, (row[starts] + 1) * level.tile_height, (column[starts] + 1) * level.tile_width)
    area = level.tile_width * level.tile_height
    rects = [values.tolist() for values in (windows.target[window], *down[:2], *right[:2], *down[2:], *right[2:])]
    return ReadPlan(
        tiles=tile[starts].tolist(),
        starts=[*starts.tolist(), len(window)],
        rects=list(zip(*rects, strict=True)),
        is_whole=((np.diff(starts, append=len(window)) == 1) & (copied[starts] == area)).tolist(),
        needed_again=again.tolist(),
    )


def _needed_again(
    windows: Windows, bottom: Int64[np.ndarray, " tile"], right: Int64[np.ndarray, " tile"]
) -> Bool[np.ndarray, " tile"]:
    """Return which tiles, given by their bottom and right ends, the next windows probably need.

    This assumes windows row by row. The next ones are to the right of the last window, or in the next row of windows.
    That row is assumed at the same distance as the last two rows. A wrong guess costs a second decode, or some memory
    for a while.
    """
    tops = np.unique(windows.top)
    if not len(tops):
        return np.zeros(len(bottom), np.bool_)
    in_last_row = windows.top == tops[-1]
    step = tops[-1] - tops[-2] if len(tops) > 1 else windows.height.max()
    needed: Bool[np.ndarray, " tile"] = bottom > tops[-1] + step
    needed |= (bottom > tops[-1]) & (right > (windows.left + windows.width)[in_last_row].max())
    return needed


def _tile_range(
    start: Int64[np.ndarray, " window"], length: Int64[np.ndarray, " window"], extent: int, side: int
) -> tuple[Int64[np.ndarray, " window"], Int64[np.ndarray, " window"]]:
    """Return the first tile that each window overlaps along an axis, and the number of tiles."""
    low, high = np.maximum(start, 0), np.minimum(start + length, extent)
    first = low // side
    return first, np.where(high > low, (high - 1) // side - first + 1, 0)


def _overlap(
    start: Int64[np.ndarray, " pair"],
    length: Int64[np.ndarray, " pair"],
    corner: Int64[np.ndarray, " pair"],
    sides: tuple[int, int],
) -> tuple[Int64[np.ndarray, " pair"], ...]:
    """Return the overlap of windows and tiles along an axis: from and to in the window, from and to in the tile.

    `sides` are the lengths of the level and of a tile.
    """
    extent, side = sides
    low = np.maximum(start, corner)
    high = np.minimum(np.minimum(start + length, corner + side), extent)
    return low - start, high - start, low - corner, high - corner
