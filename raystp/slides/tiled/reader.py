"""Read stored tiles into outputs: fetch, decode and copy by a read plan, in the file's order.

A stored tile that a single target needs whole is decoded directly into it. Any other is decoded into a buffer that is
already in the processor's cache, and copied from there.
"""

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from tifffile import PHOTOMETRIC

from raystp.errors import RaystpError
from raystp.slides.readers.resample import WHITE
from raystp.slides.tiled.buffers import ALIGNMENT, BufferPool
from raystp.slides.tiled.byte_source import ByteSource
from raystp.slides.tiled.decoders.tiles import StoredTile, tile_decoder
from raystp.slides.tiled.levels import Level
from raystp.slides.tiled.read_ahead import cancelling_pool, prefetched
from raystp.slides.tiled.read_plan import ReadPlan

Pixels = UInt8[np.ndarray, "height width 3"]

FETCH_BYTES = 16 << 20
"""Stored bytes of one batch of requests to a store, which are waited for together."""

FETCH_TILES = 1024
"""Stored tiles of one batch of requests, at most."""

DECODE_TILES = 8
"""Stored tiles that one thread decodes at a time; of a local file it also reads them."""

PREFETCH_COUNT = 2
"""Batches that are fetched from a store while one is decoded."""

_NO_BYTES = memoryview(b"")


@dataclass(frozen=True)
class ReadOptions:
    """How a plan is read."""

    threads: int = 1
    every: bool = False
    """Whether targets after the first failed one are read too."""
    damaged: dict[tuple[int, int], str] | None = None
    """If given, a stored tile that cannot be decoded is white; its level and number get the reason here."""


@dataclass
class Failures:
    """The targets that cannot be read, each with the reason of its first failed tile."""

    reasons: dict[int, tuple[int, str]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, target: int, tile: int, reason: str) -> None:
        """Record why a target cannot be read."""
        with self.lock:
            self.reasons[target] = min(self.reasons.get(target, (tile, reason)), (tile, reason))

    def before(self, targets: list[int]) -> bool:
        """Return whether a target before all of these has failed."""
        with self.lock:
            return min(self.reasons) < min(targets)


@runtime_checkable
class OutputBuffers(Protocol):
    """Where the pixels are copied to, one output per target; white where the level has no tile."""

    def direct_buffer(self, target: int, shape: tuple[int, int, int]) -> Pixels | None:
        """Return a target's memory to decode a tile into; None unless it has the tile's shape and is contiguous."""
        ...

    def copy(self, first: int, last: int, stored: Pixels) -> None:
        """Copy rectangles [first, last) of the plan from a stored tile to their targets."""
        ...

    def finish_part(self, target: int) -> None:
        """Record that a stored tile was decoded into a target's memory."""
        ...


@dataclass(frozen=True)
class FetchedTiles:
    """Consecutive tiles of a plan, each with a buffer that already holds it, or with its bytes."""

    first: int
    buffers: list[Pixels | None]
    contents: list[StoredTile]


class LevelReader:
    """Decodes one level's tiles. Threads may share it."""

    def __init__(self, level: Level, source: ByteSource, pool: BufferPool) -> None:
        self.level, self.source, self.pool = level, source, pool
        self.decode = tile_decoder(level)
        self.shape = (level.tile_height, level.tile_width, 3)
        # If only some rows are written past the cache, decoding in place is slower than a buffer and a copy.
        self.in_place = level.photometric == PHOTOMETRIC.RGB or level.tile_width * 3 % ALIGNMENT == 0

    def fill(self, plan: ReadPlan, outputs: OutputBuffers, options: ReadOptions) -> Failures:
        """Copy all rectangles of a plan to the outputs, and return the targets that failed.

        Raises:
            SlideError, StorageError: the bytes cannot be read at all.
        """
        offsets, counts = self.level.offsets[plan.tiles], self.level.counts[plan.tiles]
        read = _PlanRead(self, plan, outputs, options, offsets.tolist(), counts.tolist())
        in_parallel = options.threads > 1 and len(plan.tiles) > DECODE_TILES
        with contextlib.ExitStack() as stack:
            pool = stack.enter_context(cancelling_pool(options.threads)) if in_parallel else None
            run = pool.map if pool else map
            if self.source.is_remote:
                loads = [partial(read.load, first, last) for first, last in read.batches()]
                fetchers = stack.enter_context(cancelling_pool(PREFETCH_COUNT))
                for fetched in prefetched(fetchers, loads, count=PREFETCH_COUNT):
                    for _ in run(partial(read.copy_part, fetched), range(0, len(fetched.buffers), DECODE_TILES)):
                        pass
            else:
                for _ in run(read.load_part, range(0, len(plan.tiles), DECODE_TILES)):
                    pass
        return read.failures


@dataclass(frozen=True, eq=False)
class _PlanRead:
    """One call of `LevelReader.fill`."""

    reader: LevelReader
    plan: ReadPlan
    outputs: OutputBuffers
    options: ReadOptions
    offsets: list[int]
    counts: list[int]
    failures: Failures = field(default_factory=Failures)

    def batches(self) -> list[tuple[int, int]]:
        """Return the first tile of each batch of requests, and the one after its last."""
        before = np.cumsum(self.counts)
        batch = before // FETCH_BYTES + np.arange(len(before)) // FETCH_TILES
        cuts = [*np.flatnonzero(np.diff(batch, prepend=-1)).tolist(), len(batch)]
        return list(pairwise(cuts))

    def load(self, first: int, last: int) -> FetchedTiles:
        """Return tiles [first, last) of the plan with their bytes."""
        level, tiles = self.reader.level.number, self.plan.tiles[first:last]
        offsets, counts = self.offsets[first:last], self.counts[first:last]
        buffers = self.reader.pool.take_cached(level, tiles)
        missing = [number for number, buffer in enumerate(buffers) if buffer is None and counts[number]]
        contents: list[StoredTile] = [_NO_BYTES] * len(tiles)
        try:
            fetched = self._fetch(first, missing, offsets, counts)
        except RaystpError:
            for tile, buffer in zip(tiles, buffers, strict=True):
                if buffer is not None:
                    self.reader.pool.give_back(buffer, (level, tile))
            raise
        for number, content in zip(missing, fetched, strict=True):
            contents[number] = content
        return FetchedTiles(first, buffers, contents)

    def _fetch(self, first: int, missing: list[int], offsets: list[int], counts: list[int]) -> Sequence[StoredTile]:
        """Return the stored bytes of the tiles `missing` after the first one, of each plane if there are three."""
        red = self.reader.source.fetch([offsets[n] for n in missing], [counts[n] for n in missing])
        if not self.reader.level.green_blue:
            return red
        planes = [red]
        tiles = [self.plan.tiles[first + n] for n in missing]
        for plane_offsets, plane_counts in self.reader.level.green_blue:
            planes.append(self.reader.source.fetch(plane_offsets[tiles].tolist(), plane_counts[tiles].tolist()))
        return list(zip(*planes, strict=True))

    def load_part(self, first: int) -> None:
        """Fetch, decode and copy some tiles; their bytes are still in the processor's cache when they are decoded."""
        self.copy_part(self.load(first, min(first + DECODE_TILES, len(self.plan.tiles))), 0)

    def copy_part(self, fetched: FetchedTiles, part: int) -> None:
        """Decode and copy `DECODE_TILES` fetched tiles from number `part` on."""
        plan, reader, pool = self.plan, self.reader, self.reader.pool
        spare: Pixels | None = None
        for number in range(part, min(part + DECODE_TILES, len(fetched.buffers))):
            index, buffer = fetched.first + number, fetched.buffers[number]
            tile, first, last = plan.tiles[index], plan.starts[index], plan.starts[index + 1]
            if buffer is None:
                if self.failures.reasons and not self.options.every and self.failures.before(self._targets(index)):
                    continue
                if reader.in_place and plan.is_whole[index]:
                    target = int(plan.rects[first, 0])
                    direct = self.outputs.direct_buffer(target, reader.shape)
                    if direct is not None:
                        if self._decode(index, fetched.contents[number], direct):
                            self.outputs.finish_part(target)
                        continue
                buffer = pool.take(reader.shape) if spare is None else spare
                spare = buffer
                if not self._decode(index, fetched.contents[number], buffer):
                    continue
            self.outputs.copy(first, last, buffer)
            key = (reader.level.number, tile)
            if plan.needed_again[index] and key not in (self.options.damaged or ()):  # white is never cached
                pool.give_back(buffer, key)
                spare = None if spare is buffer else spare
            elif buffer is not spare:
                pool.give_back(buffer, None)
        if spare is not None:
            pool.give_back(spare, None)

    def _targets(self, index: int) -> list[int]:
        """Return the targets of a tile of the plan."""
        first, last = self.plan.starts[index : index + 2]
        targets: list[int] = self.plan.rects[first:last, 0].tolist()
        return targets

    def _decode(self, index: int, content: StoredTile, pixels: Pixels) -> bool:
        """Decode a tile of the plan, and return whether that succeeded; record a failure for its targets."""
        if not content:
            pixels.fill(WHITE)
            return True
        try:
            self.reader.decode(content, pixels)
        except ValueError as error:
            tile = self.plan.tiles[index]
            if self.options.damaged is not None:
                pixels.fill(WHITE)
                self.options.damaged[self.reader.level.number, tile] = str(error)
                return True
            for target in self._targets(index):
                self.failures.add(target, tile, str(error))
            return False
        return True
