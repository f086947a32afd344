"""Memory for decoded tiles that is used again and again: new memory costs the system a page fault every 4 KiB.

A slot belongs to one reader at a time, or to the pool. Slots that hold a tile which the next batch is likely to need
stay as they are until their memory is wanted; the one that was put back longest ago goes first.

Where a slot begins matters. libjpeg-turbo writes rows that begin at a multiple of 32 bytes past the processor's cache:
that decodes 6 % slower, and copying from it takes three times as long. TIFF's tiles are a multiple of 16 px wide, so no
row of a slot that begins 8 bytes past such a place is at one.
"""

import threading
from collections import OrderedDict

import numpy as np
from jaxtyping import UInt8

Key = tuple[int, int]
"""A level and a tile's number in it."""

Shape = tuple[int, int, int]

ALIGNMENT, PAST = 32, 8
"""A slot begins so many bytes (`PAST`) past a multiple of `ALIGNMENT`."""


class SlotPool:
    """Slots of up to about `limit` bytes in all. It may be used from many threads at once."""

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._held: OrderedDict[Key, UInt8[np.ndarray, "height width 3"]] = OrderedDict()
        self._free: dict[Shape, list[UInt8[np.ndarray, "height width 3"]]] = {}
        self._lock = threading.Lock()

    def held(self, keys: list[Key]) -> list[UInt8[np.ndarray, "height width 3"] | None]:
        """Return the slots that hold tiles, the caller's until they are put back; None for a tile that none holds."""
        if not self._held:
            return [None] * len(keys)
        with self._lock:
            return [self._held.pop(key, None) for key in keys]

    def empty(self, shape: Shape) -> UInt8[np.ndarray, "height width 3"]:
        """Return a slot of a shape with any content, the one put back last if there is one: it is still in cache."""
        with self._lock:
            free = self._free.setdefault(shape, [])
            if free:
                return free.pop()
            size = shape[0] * shape[1] * shape[2]
            while self._held and self._bytes + size > self._limit:
                _, oldest = self._held.popitem(last=False)
                if oldest.shape == shape:
                    return oldest
                self._bytes -= oldest.nbytes
            self._bytes += size
        return slot(shape)

    def give_back(self, pixels: UInt8[np.ndarray, "height width 3"], key: Key | None) -> None:
        """Put a slot back; with a key it holds that tile from now on."""
        with self._lock:
            if key is not None and self._bytes <= self._limit:
                twin = self._held.pop(key, None)  # two readers may have decoded the same tile
                self._held[key] = pixels
                if twin is None:
                    return
                pixels = twin
            rows, columns, samples = pixels.shape
            self._free.setdefault((rows, columns, samples), []).append(pixels)

    def clear(self) -> None:
        """Let all memory go."""
        with self._lock:
            self._held.clear()
            self._free.clear()
            self._bytes = 0


def slot(shape: Shape) -> UInt8[np.ndarray, "height width 3"]:
    """Return new memory for a tile of a shape, that begins where decoding into it and copying from it is fastest."""
    size = shape[0] * shape[1] * shape[2]
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = (PAST - memory.ctypes.data) % ALIGNMENT
    return memory[start : start + size].reshape(shape)
