"""A read plan: which stored tiles a batch of windows needs, each of them once, and what is copied from each to where.

In go windows of one level, in its pixels, out come its tiles in the file's order (row by row), each with the
rectangles to copy from it. So a batch decodes every stored tile once, whatever the order of its windows and however
they lie to the grid.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from raystp.slides.tiled.levels import Level

Copy = tuple[int, int, int, int, int, int, int, int, int]
"""Target; its rows from and to, columns from and to; the stored tile's rows from and to, columns from and to."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Rectangles of one level, one per target; they may hang over its edges or lie outside."""

    target: Int64[np.ndarray, " window"]
    left: Int64[np.ndarray, " window"]
    top: Int64[np.ndarray, " window"]
    width: Int64[np.ndarray, " window"]
    height: Int64[np.ndarray, " window"]


@dataclass(frozen=True)
class ReadPlan:
    """Stored tiles in the file's order; `copies[starts[i]:starts[i + 1]]` are those from `tiles[i]`."""

    tiles: list[int]
    starts: list[int]
    copies: list[Copy]
    whole: list[bool]
    """Whether all of the tile is copied, once."""
    again: list[bool]
    """Whether the next batch, if it goes on below or to the right of this one, is likely to need the tile too."""


def read_plan(level: Level, windows: Windows) -> ReadPlan:
    """Return what to decode and copy for all windows of a level."""
    column, columns = _span(windows.left, windows.width, level.width, level.tile_width)
    row, rows = _span(windows.top, windows.height, level.height, level.tile_height)
    pairs = columns * rows
    of = np.repeat(np.arange(len(pairs)), pairs)  # the window of each pair of a window and a tile
    within = np.arange(len(of)) - np.repeat(np.cumsum(pairs) - pairs, pairs)
    row, column = row[of] + within // columns[of], column[of] + within % columns[of]
    tile = row * level.across + column
    order = np.argsort(tile, kind="stable")
    of, tile, row, column = of[order], tile[order], row[order], column[order]
    down = _overlap(windows.top[of], windows.height[of], row * level.tile_height, (level.height, level.tile_height))
    right = _overlap(windows.left[of], windows.width[of], column * level.tile_width, (level.width, level.tile_width))
    starts = np.flatnonzero(np.diff(tile, prepend=-1))
    copied = (down[1] - down[0]) * (right[1] - right[0])
    again = _is_needed_again(windows, (row[starts] + 1) * level.tile_height, (column[starts] + 1) * level.tile_width)
    area = level.tile_width * level.tile_height
    copies = [values.tolist() for values in (windows.target[of], *down[:2], *right[:2], *down[2:], *right[2:])]
    return ReadPlan(
        tiles=tile[starts].tolist(),
        starts=[*starts.tolist(), len(of)],
        copies=list(zip(*copies, strict=True)),
        whole=((np.diff(starts, append=len(of)) == 1) & (copied[starts] == area)).tolist(),
        again=again.tolist(),
    )


def _is_needed_again(
    windows: Windows, bottom: Int64[np.ndarray, " tile"], right: Int64[np.ndarray, " tile"]
) -> Bool[np.ndarray, " tile"]:
    """Say which tiles, by their ends, the windows after these are likely to need, if they come row by row.

    Those are to the right of the last window, or in the next row of windows, as far below it as it is below the one
    before. A wrong guess costs a tile that is decoded twice, or some memory for a while.
    """
    tops = np.unique(windows.top)
    if not len(tops):
        return np.zeros(len(bottom), np.bool_)
    last = windows.top == tops[-1]
    step = tops[-1] - tops[-2] if len(tops) > 1 else windows.height.max()
    needed: Bool[np.ndarray, " tile"] = bottom > tops[-1] + step
    needed |= (bottom > tops[-1]) & (right > (windows.left + windows.width)[last].max())
    return needed


def _span(
    start: Int64[np.ndarray, " window"], length: Int64[np.ndarray, " window"], extent: int, side: int
) -> tuple[Int64[np.ndarray, " window"], Int64[np.ndarray, " window"]]:
    """Return the first tile that each window touches along an axis, and how many it touches."""
    low, high = np.maximum(start, 0), np.minimum(start + length, extent)
    first = low // side
    return first, np.where(high > low, (high - 1) // side - first + 1, 0)


def _overlap(
    start: Int64[np.ndarray, " pair"],
    length: Int64[np.ndarray, " pair"],
    corner: Int64[np.ndarray, " pair"],
    sides: tuple[int, int],
) -> tuple[Int64[np.ndarray, " pair"], ...]:
    """Return where windows and tiles meet along an axis: from and to within the window, from and to within the tile.

    `sides` are the lengths of the level and of a tile.
    """
    extent, side = sides
    low = np.maximum(start, corner)
    high = np.minimum(np.minimum(start + length, corner + side), extent)
    return low - start, high - start, low - corner, high - corner
