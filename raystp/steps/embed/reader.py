"""Read the pixels of a unit's tiles, inside the actor that encodes them or in a reader actor."""

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from raystp.cluster.streams.units import Pixels, ReadTiles, WorkUnit
from raystp.digests import ABSENT_CONTENT, content_id, file_id
from raystp.errors import SlideError
from raystp.slides.open import Slide, open_slide, prefetch_tiles, read_tiles_or_fail
from raystp.storage import StoragePath
from raystp.storage.node_cache import NodeCache
from raystp.units import TilePixels

COLUMNS = ["x", "y", "side"]


@dataclass(frozen=True)
class SlideTiles:
    """A slide as `tile` read it."""

    path: str
    """Path or URI."""
    mpp: float
    """um/px that tiling used."""
    content: str
    """Identifier of the file's content when it was tiled."""


def open_tiled(name: str, tiled: SlideTiles, cache: NodeCache | None) -> Slide:
    """Open a slide at the um/px that tiling used; raises SlideError where its file changed or left after tiling."""
    path = StoragePath(tiled.path)
    found = content_id(path) if path.is_local else file_id(path)
    if found == ABSENT_CONTENT:
        msg = f"slide {name!r} ({path}) is not there: make it readable on this machine, or run `raystp tile` again"
        raise SlideError(msg)
    if found != tiled.content:
        msg = f"slide {name!r} ({path}) was replaced after it was tiled: run `raystp tile` again"
        raise SlideError(msg)
    return open_slide(name, path, given_mpp=tiled.mpp, cache=cache)


class TileTables:
    """The table of tiles that was read last; a copy in another process starts empty. For one thread."""

    def __init__(self) -> None:
        self._path: StoragePath | None = None
        self._table = pa.table({})

    def __reduce__(self) -> "tuple[type[TileTables], tuple[()]]":
        """Pickle nothing of the table."""
        return TileTables, ()

    def read(self, path: StoragePath) -> pa.Table:
        """Return the table of that path."""
        if path != self._path:
            self._table, self._path = path.read_table(), path
        return self._table


class UnitReader:
    """Reads ranges of a unit's tiles; keeps the current slide open until a unit of another slide comes.

    Batches are read into the same few arrays in turn: allocating each would cost a fifth of the reading time.
    """

    def __init__(
        self,
        tiles: StoragePath,
        slides: dict[str, SlideTiles],
        tile_px: TilePixels,
        *,
        cache: NodeCache | None,
        buffers: int,
        scales: int = 1,
    ) -> None:
        self._scales = scales
        self._tiles, self._slides, self._tile_px, self._cache = tiles, slides, tile_px, cache
        self._lock = threading.Lock()
        self._buffers: deque[Pixels] = deque([np.empty((0, 0, 0, 3), np.uint8)] * buffers)
        self._name: str | None = None
        self._unit: str | None = None
        self._slide: Slide | None = None
        self._boxes: Float64[np.ndarray, "tile scale 3"] = np.empty((0, 1, 3))

    def __call__(self, unit: WorkUnit, start: int, stop: int) -> ReadTiles:
        """Return the pixels of tiles [start, stop) of a unit, and the reasons of those that cannot be read.

        With several sizes around each place, a place has adjacent tiles; if one cannot be read, the place cannot.
        """
        slide, boxes = self._open(unit)
        first, count = unit.first + start, self._scales
        part = boxes[first : unit.first + stop].reshape(-1, 3)
        buffer = self._next_buffer((stop - start) * count)
        pixels, failed = read_tiles_or_fail(slide, part, self._tile_px, into=buffer)
        if not failed:
            return ReadTiles(pixels)
        reasons: dict[int, str] = {}
        for row, text in failed.items():
            # The reason has the number of the tile in this batch; its reader needs the number in the slide.
            place = row // count
            reasons.setdefault(start + place, f"tile {first + place}{text.removeprefix(f'tile {row}')}")
        lost = [(place - start) * count + scale for place in reasons for scale in range(count)]
        return ReadTiles(np.delete(pixels, lost, axis=0), reasons)

    def close(self) -> None:
        """Close the current slide; the next unit opens its own."""
        with self._lock:
            if self._slide is not None:
                self._slide.close()
            self._slide = self._unit = None

    def _next_buffer(self, count: int) -> Pixels:
        with self._lock:
            buffer = self._buffers.popleft()
            if len(buffer) < count:
                buffer = np.empty((count, self._tile_px, self._tile_px, 3), np.uint8)
            self._buffers.append(buffer)
        return buffer[:count]

    def _open(self, unit: WorkUnit) -> tuple[Slide, Float64[np.ndarray, "tile scale 3"]]:
        """Return the unit's slide and all its tile boxes; announce the unit's tiles to the slide's reader."""
        with self._lock:
            if self._slide is None or self._name != unit.slide:
                self._replace_slide(unit.slide)
            assert self._slide is not None  # just opened
            if unit.unit != self._unit:
                self._unit = unit.unit
                boxes = self._boxes[unit.first : unit.first + unit.rows].reshape(-1, 3)
                prefetch_tiles(self._slide, boxes, self._tile_px)
            return self._slide, self._boxes

    def _replace_slide(self, name: str) -> None:
        """Close the current slide and open another; raises SlideError where its file changed after tiling."""
        if self._slide is not None:
            self._slide.close()
        self._slide = None  # until its boxes are read too: after an error the next unit opens it again
        table = (self._tiles / ("tiles" if self._scales == 1 else "scales") / f"{name}.parquet").read_table(COLUMNS)
        boxes = np.stack([table[column].to_numpy() for column in COLUMNS], axis=1)
        self._boxes = boxes.reshape(-1, self._scales, 3)
        self._slide, self._name = open_tiled(name, self._slides[name], self._cache), name
