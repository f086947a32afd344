"""Masks as shapes: their small parts, and the same mask wider, closed over gaps, or smooth.

Plain array work on whole pictures of about 1024 px, a few CPU-ms each; what is outside a picture counts as empty.
"""

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def small_parts(mask: Bool[np.ndarray, "row col"], smallest: float) -> Bool[np.ndarray, "row col"]:
    """Return the connected parts (by edges) of a mask that have fewer than `smallest` pixels.

    Rows are cut into runs, and runs that touch are joined: 4 CPU-ms at 1024 px, labelling pixels took 18.
    """
    wide = mask.shape[1] + 1  # a column that is never set ends each row's last run
    flat = np.zeros(mask.shape[0] * wide + 1, np.bool_)
    flat[1:].reshape(-1, wide)[:, :-1] = mask
    turns = np.flatnonzero(flat[1:] != flat[:-1])
    start, end = turns[::2], turns[1::2]
    first = np.searchsorted(end - wide, start, side="right")  # the next row's runs below a run: first, and how many
    count = np.maximum(np.searchsorted(start - wide, end, side="left") - first, 0)
    upper, lower = np.repeat(np.arange(len(start)), count), ranges(first, count)
    links = coo_array((np.ones(len(upper), np.bool_), (upper, lower)), shape=(len(start), len(start)))
    _, part = connected_components(links, directed=False)
    small = np.bincount(part, weights=end - start)[part] < smallest
    flat[:] = False
    flat[ranges(start[small], (end - start)[small])] = True
    parts: Bool[np.ndarray, "row col"] = flat[:-1].reshape(-1, wide)[:, :-1]
    return parts


def ranges(first: Int64[np.ndarray, " run"], count: Int64[np.ndarray, " run"]) -> Int64[np.ndarray, " place"]:
    """Return first, first + 1, ... of each run, `count` of them, one run after the other."""
    places: Int64[np.ndarray, " place"] = np.arange(int(count.sum())) + np.repeat(first - count.cumsum() + count, count)
    return places


def widened(mask: Bool[np.ndarray, "row col"], reach: int) -> Bool[np.ndarray, "row col"]:
    """Return the pixels within `reach` px of a mask along both axes: what a square of 2 `reach` + 1 px covers."""
    wide = mask.copy()
    for along in (wide, wide.T):
        done = 0
        while done < reach:  # a pixel that reaches n px reaches 2 n + 1 after a step of n + 1
            step = min(done + 1, reach - done)
            before = along.copy(order="K")
            along[step:] |= before[:-step]
            along[:-step] |= before[step:]
            done += step
    return wide


def closed(mask: Bool[np.ndarray, "row col"], reach: int) -> Bool[np.ndarray, "row col"]:
    """Return a mask with gaps of up to 2 `reach` px filled, and its outline as it was."""
    wide = widened(np.pad(mask, reach), reach)
    narrow = ~widened(~wide, reach)
    inner: Bool[np.ndarray, "row col"] = narrow[reach : narrow.shape[0] - reach, reach : narrow.shape[1] - reach]
    return inner


def smooth(levels: UInt8[np.ndarray, "row col"]) -> UInt8[np.ndarray, "row col"]:
    """Return the mean over 3 x 3 px, so that a camera's noise makes no specks."""
    wide = np.pad(levels.astype(np.uint16), 1, mode="edge")
    rows = wide[:-2] + wide[1:-1] + wide[2:]
    mean: UInt8[np.ndarray, "row col"] = ((rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) // 9).astype(np.uint8)
    return mean
