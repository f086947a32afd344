"""Read the pixels of a unit's tiles, inside the actor that encodes them or in a reader actor."""

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from raystp.artifacts import content_id, file_id
from raystp.cluster.streams.units import Pixels, ReadTiles, WorkUnit
from raystp.errors import SlideError
from raystp.slides.open import Slide, open_slide, prefetch_tiles, read_tiles_or_fail
from raystp.storage import StoragePath
from raystp.storage.node_cache import NodeCache
from raystp.units import TilePixels


@dataclass(frozen=True)
class SlideTiles:
    """A slide as `tile` read it."""

    path: str
    """Path or URI."""
    mpp: float
    """um/px that tiling used."""
    content: str
    """Identifier of the file's content when it was tiled."""


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
    ) -> None:
        self._tiles, self._slides, self._tile_px, self._cache = tiles, slides, tile_px, cache
        self._lock = threading.Lock()
        self._buffers: deque[Pixels] = deque([np.empty((0, 0, 0, 3), np.uint8)] * buffers)
        self._name: str | None = None
        self._unit: str | None = None
        self._slide: Slide | None = None
        self._boxes: Float64[np.ndarray, "tile 3"] = np.empty((0, 3))

    def __call__(self, unit: WorkUnit, start: int, stop: int) -> ReadTiles:
        """Return the pixels of tiles [start, stop) of a unit, and the reasons of those that cannot be read."""
        slide, boxes = self._open(unit)
        first = unit.first + start
        part = boxes[first : unit.first + stop]
        pixels, failed = read_tiles_or_fail(slide, part, self._tile_px, into=self._next_buffer(stop - start))
        if not failed:
            return ReadTiles(pixels)
        # The reason has the number of the tile in this batch; its reader needs the number in the slide.
        reasons = {start + row: f"tile {first + row}{text.removeprefix(f'tile {row}')}" for row, text in failed.items()}
        return ReadTiles(np.delete(pixels, list(failed), axis=0), reasons)

    def _next_buffer(self, count: int) -> Pixels:
        with self._lock:
            buffer = self._buffers.popleft()
            if len(buffer) < count:
                buffer = np.empty((count, self._tile_px, self._tile_px, 3), np.uint8)
            self._buffers.append(buffer)
        return buffer[:count]

    def _open(self, unit: WorkUnit) -> tuple[Slide, Float64[np.ndarray, "tile 3"]]:
        """Return the unit's slide and all its tile boxes; announce the unit's tiles to the slide's reader."""
        with self._lock:
            if self._slide is None or self._name != unit.slide:
                self._replace_slide(unit.slide)
            assert self._slide is not None  # just opened
            if unit.unit != self._unit:
                self._unit = unit.unit
                prefetch_tiles(self._slide, self._boxes[unit.first : unit.first + unit.rows], self._tile_px)
            return self._slide, self._boxes

    def _replace_slide(self, name: str) -> None:
        """Close the current slide and open another; raises SlideError where its file changed after tiling."""
        if self._slide is not None:
            self._slide.close()
        self._slide, self._name = None, name
        tiled = self._slides[name]
        path = StoragePath(tiled.path)
        if (content_id(path) if path.is_local else file_id(path)) != tiled.content:
            msg = f"slide {name!r} ({path}) was replaced after it was tiled: run `raystp tile` again"
            raise SlideError(msg)
        self._slide = open_slide(name, path, given_mpp=tiled.mpp, cache=self._cache)
        table = (self._tiles / "tiles" / f"{name}.parquet").read_table(["x", "y", "side"])
        self._boxes = np.stack([table[column].to_numpy() for column in ("x", "y", "side")], axis=1)
