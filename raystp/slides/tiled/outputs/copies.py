"""Copy the parts of stored tiles to the memory of their targets: by numpy at first, and by a kernel in long runs."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int64, UInt8

from raystp.slides.readers.kernels import LateKernel
from raystp.slides.tiled.read_plan import ReadPlan

Pixels = UInt8[np.ndarray, "height width 3"]
Tiles = UInt8[np.ndarray, "tile row col 3"]

CopyKernel = Callable[[Pixels, Int64[np.ndarray, "rect 9"], int, int, Int64[np.ndarray, "target 2"], bool], None]
"""Copies rectangles [first, last) of a stored tile to targets, each given by its address and bytes a row.

The last argument is whether the targets are written past the processor's cache.
"""

NUMPY_TILES = 1 << 15
"""Stored tiles of a process that numpy copies. The kernel saves about 12 us of each, and costs 0.4 s to load."""


def _load() -> CopyKernel:
    from raystp.slides.tiled.outputs.copy_kernel import load_copy_kernel  # noqa: PLC0415 -- it imports numba

    return load_copy_kernel()


COPY_KERNEL = LateKernel(_load, after=NUMPY_TILES)


class Copier:
    """Copies the parts of stored tiles to targets, at first the tiles of an array."""

    def __init__(self, tiles: Tiles, plan: ReadPlan, *, past_cache: bool) -> None:
        self._rects, self._past_cache = plan.rects, past_cache
        self._targets: dict[int, Pixels] = {}
        self._tiles = tiles
        is_plain = tiles.strides[2:] == (3, 1) and tiles.flags.writeable
        self._kernel = COPY_KERNEL.use(len(plan.tiles)) if is_plain else None
        self._memory = np.empty((len(tiles), 2), np.int64)
        if self._kernel is not None:
            self._memory[:, 0] = tiles.ctypes.data + np.arange(len(tiles)) * tiles.strides[0]
            self._memory[:, 1] = tiles.strides[1]

    def set_target(self, target: int, pixels: Pixels) -> None:
        """Copy to other memory, contiguous and kept by the caller until it is copied, instead of a target's tile."""
        self._targets[target] = pixels
        if self._kernel is not None:
            self._memory[target] = pixels.ctypes.data, pixels.strides[0]

    def copy(self, first: int, last: int, stored: Pixels) -> None:
        """Copy rectangles [first, last) of the plan from a stored tile."""
        if self._kernel is not None:
            self._kernel(stored, self._rects, first, last, self._memory, self._past_cache)
            return
        for rect in self._rects[first:last].tolist():
            target, top, bottom, left, right, row, row_end, column, column_end = rect
            pixels = self._targets.get(target)
            pixels = self._tiles[target] if pixels is None else pixels
            pixels[top:bottom, left:right] = stored[row:row_end, column:column_end]
