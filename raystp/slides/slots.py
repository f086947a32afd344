"""Memory for decoded tiles that is used again and again: new memory costs the system a page fault every 4 KiB.

A slot belongs to one reader at a time, or to the pool. Slots that hold a tile which the next batch is likely to need
stay as they are until their memory is wanted; the one that was put back longest ago goes first.
"""

import threading
from collections import OrderedDict

import numpy as np
from jaxtyping import UInt8

Key = tuple[int, int]
"""A level and a tile's number in it."""

Shape = tuple[int, int, int]


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
        return np.empty(shape, np.uint8)

    def give_back(self, slot: UInt8[np.ndarray, "height width 3"], key: Key | None) -> None:
        """Put a slot back; with a key it holds that tile from now on."""
        with self._lock:
            if key is not None and self._bytes <= self._limit:
                twin = self._held.pop(key, None)  # two readers may have decoded the same tile
                self._held[key] = slot
                slot = twin if twin is not None else slot
                if twin is None:
                    return
            self._free.setdefault((slot.shape[0], slot.shape[1], slot.shape[2]), []).append(slot)

    def clear(self) -> None:
        """Let all memory go."""
        with self._lock:
            self._held.clear()
            self._free.clear()
            self._bytes = 0
