"""Plan reads: the stored tiles that a batch of windows needs, each once, and the rectangles to copy from each.

Windows are in pixels of one level. Stored tiles come in the file's order (row by row). A batch decodes every stored
tile once, whatever the order of its windows and their position on the level's tile grid.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from raystp.slides.tiled.levels import Level
from raystp.slides.tiled.read_again import Ahead, Windows, needed_again, tiles_under


@dataclass(frozen=True)
class ReadPlan:
    """Stored tiles in the file's order; `rects[starts[i]:starts[i + 1]]` are copied from `tiles[i]`."""

    tiles: list[int]
    starts: list[int]
    rects: Int64[np.ndarray, "rect 9"]
    """Target; its rows from and to, columns from and to; the stored tile's rows from and to, columns from and to."""
    is_whole: list[bool]
    """Whether all of the stored tile is copied, once."""
    needed_again: list[bool]
    """Whether later windows of the call need the stored tile, or the next call probably does (`read_again`)."""


def make_read_plan(level: Level, windows: Windows, ahead: Ahead) -> ReadPlan:
    """Return the tiles to decode and the rectangles to copy for all windows of a level."""
    window, row, column = tiles_under(level, windows)
    tile = row * level.across + column
    order = np.argsort(tile, kind="stable")
    window, tile, row, column = window[order], tile[order], row[order], column[order]
    heights, widths = (level.height, level.tile_height), (level.width, level.tile_width)
    down = _overlap(windows.top[window], windows.height[window], row * level.tile_height, heights)
    right = _overlap(windows.left[window], windows.width[window], column * level.tile_width, widths)
    starts = np.flatnonzero(np.diff(tile, prepend=-1))
    copied = (down[1] - down[0]) * (right[1] - right[0])
    again = needed_again(level, row[starts], column[starts], ahead)
    area = level.tile_width * level.tile_height
    rects = (windows.target[window], *down[:2], *right[:2], *down[2:], *right[2:])
    return ReadPlan(
        tiles=tile[starts].tolist(),
        starts=[*starts.tolist(), len(window)],
        rects=np.stack(rects, axis=1),
        is_whole=((np.diff(starts, append=len(window)) == 1) & (copied[starts] == area)).tolist(),
        needed_again=again.tolist(),
    )


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
