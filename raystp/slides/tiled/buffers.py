"""Reusable buffers for decoded tiles: new memory costs the system a page fault every 4 KiB.

A buffer belongs to one reader at a time, or to the pool. A buffer with a tile that the next batch probably needs keeps
its content until its memory is needed. The one returned longest ago is reused first.

The start address matters. libjpeg-turbo writes rows that start at a multiple of 32 bytes past the processor's cache.
Decoding is then slower, and so is copying from the buffer. TIFF tiles are a multiple of 16 px wide. So no row is at
such a multiple in a buffer that starts 8 bytes past one.
"""

import threading
from collections import OrderedDict

import numpy as np
from jaxtyping import UInt8

Key = tuple[int, int]
"""A level, and a tile's number in it."""

Shape = tuple[int, int, int]

ALIGNMENT, OFFSET = 32, 8
"""A buffer starts `OFFSET` bytes past a multiple of `ALIGNMENT`."""

ROOM = 16
"""New memory for a region is larger by this part: regions of one size differ by a pixel or two."""


class BufferPool:
    """Buffers of about `limit` bytes in total. Threads may share it."""

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._cached: OrderedDict[Key, UInt8[np.ndarray, "height width 3"]] = OrderedDict()
        self._free: dict[Shape, list[UInt8[np.ndarray, "height width 3"]]] = {}
        self._lock = threading.Lock()

    def grow(self, limit: int) -> None:
        """Raise the limit to `limit` bytes; never lower it."""
        with self._lock:
            self._limit = max(self._limit, limit)

    def take_cached(self, level: int, tiles: list[int]) -> list[UInt8[np.ndarray, "height width 3"] | None]:
        """Return the buffers that hold a level's tiles, None for each tile without one; the caller returns them."""
        if not self._cached:
            return [None] * len(tiles)
        with self._lock:
            return [self._cached.pop((level, tile), None) for tile in tiles]

    def take(self, shape: Shape) -> UInt8[np.ndarray, "height width 3"]:
        """Return a buffer of a shape with any content; of several free ones the last returned, still in CPU cache."""
        with self._lock:
            free = self._free.setdefault(shape, [])
            if free:
                return free.pop()
            size = shape[0] * shape[1] * shape[2]
            while self._cached and self._bytes + size > self._limit:
                _, oldest = self._cached.popitem(last=False)
                if oldest.shape == shape:
                    return oldest
                self._bytes -= oldest.nbytes
            self._bytes += size
        return new_buffer(shape)

    def give_back(self, buffer: UInt8[np.ndarray, "height width 3"], key: Key | None) -> None:
        """Return a buffer to the pool; with a key, its content is cached as that tile."""
        with self._lock:
            if key is not None and self._bytes <= self._limit:
                duplicate = self._cached.pop(key, None)  # two readers may have decoded the same tile
                self._cached[key] = buffer
                if duplicate is None:
                    return
                buffer = duplicate
            rows, columns, samples = buffer.shape
            self._free.setdefault((rows, columns, samples), []).append(buffer)

    def clear(self) -> None:
        """Release all memory."""
        with self._lock:
            self._cached.clear()
            self._free.clear()
            self._bytes = 0


class RegionBuffers:
    """Memory of regions that are resampled, about `limit` bytes of it kept for the next ones. Threads may share it."""

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._free: list[UInt8[np.ndarray, " byte"]] = []
        self._lock = threading.Lock()

    def take(self, height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
        """Return memory with any content; of several free ones the last returned, still in CPU cache."""
        size = height * width * 3
        with self._lock:
            memory = self._free.pop() if self._free else np.empty(0, np.uint8)
            self._bytes -= memory.nbytes
        if memory.nbytes < size:
            memory = np.empty(size + size // ROOM, np.uint8)
        return memory[:size].reshape(height, width, 3)

    def give_back(self, buffer: UInt8[np.ndarray, "height width 3"]) -> None:
        """Return the memory of a region; its content is no longer needed."""
        memory = buffer.base
        assert isinstance(memory, np.ndarray)  # of `take`
        with self._lock:
            if self._bytes + memory.nbytes <= self._limit:
                self._bytes += memory.nbytes
                self._free.append(memory)

    def clear(self) -> None:
        """Release all memory."""
        with self._lock:
            self._free.clear()
            self._bytes = 0


def new_buffer(shape: Shape) -> UInt8[np.ndarray, "height width 3"]:
    """Return new memory for a tile of a shape, at a start address where decoding and copying are fastest."""
    size = shape[0] * shape[1] * shape[2]
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = (OFFSET - memory.ctypes.data) % ALIGNMENT
    return memory[start : start + size].reshape(shape)
