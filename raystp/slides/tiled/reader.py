"""Stored tiles to canvases: fetches, decodes and copies what a read plan says, in the file's order.

In go a plan and the canvases of its targets, which are filled; out come the targets that cannot be had, each with the
reason. A tile that one target alone needs, and whole, is decoded where it belongs; any other is decoded into a slot of
memory that is in the processor's cache already, and copied from there.
"""

import contextlib
import threading
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, UInt8
from tifffile import PHOTOMETRIC

from raystp.errors import RaystpError
from raystp.slides.readers.resample import WHITE
from raystp.slides.tiled.buffers import ALIGNMENT, SlotPool
from raystp.slides.tiled.decoders import decoder
from raystp.slides.tiled.levels import Level
from raystp.slides.tiled.read_plan import Copy, ReadPlan
from raystp.slides.tiled.sources import ByteSource
from raystp.slides.tiled.threads import ahead, workers

Pixels = UInt8[np.ndarray, "height width 3"]

PIECE_BYTES = 16 << 20
"""Stored bytes that are fetched from a store at a time: some requests, which are waited for together."""

PIECE_TILES = 1024
PART_TILES = 8
"""Tiles that one thread decodes at a time, and fetches where that takes no time."""

_NOTHING = memoryview(b"")

AHEAD = 2
"""Pieces that are fetched from a store while one is decoded."""


@dataclass
class Failures:
    """The targets that cannot be read; of several reasons for one, that of the first tile counts."""

    reasons: dict[int, tuple[int, str]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, target: int, tile: int, reason: str) -> None:
        """Note why a target cannot be read."""
        with self.lock:
            self.reasons[target] = min(self.reasons.get(target, (tile, reason)), (tile, reason))

    def before(self, copies: list[Copy]) -> bool:
        """Say whether a target is known to fail that comes before all of these."""
        with self.lock:
            return min(self.reasons) < min(copy[0] for copy in copies)


@runtime_checkable
class Canvases(Protocol):
    """What the pixels are copied onto, one canvas per target; white, where no tile lies."""

    def whole(self, target: int, shape: tuple[int, int, int]) -> Pixels | None:
        """Return a target's canvas to decode a tile onto that fills it; None where it has not just the tile's shape."""
        ...

    def paste(self, copies: list[Copy], stored: Pixels) -> None:
        """Copy parts of a stored tile onto their targets' canvases."""
        ...

    def complete(self, target: int) -> None:
        """Be told that a stored tile was decoded onto a target's canvas."""
        ...


@dataclass(frozen=True)
class Piece:
    """Some tiles of a plan in a row, and what is known of each: a slot that holds it already, or its bytes."""

    first: int
    slots: list[Pixels | None]
    contents: list[memoryview]


class LevelReader:
    """Decodes one level's tiles; it may be used from many threads at once."""

    def __init__(self, level: Level, source: ByteSource, pool: SlotPool) -> None:
        self.level, self.source, self.pool = level, source, pool
        self.decode = decoder(level)
        self.shape = (level.tile_height, level.tile_width, 3)
        # Where some rows bypass the cache and others do not, decoding in place is slower than a slot and a copy.
        self.in_place = level.photometric == PHOTOMETRIC.RGB or level.tile_width * 3 % ALIGNMENT == 0

    def fill(self, plan: ReadPlan, canvases: Canvases, *, threads: int) -> Failures:
        """Copy all that a plan says onto canvases, and return the targets that could not be filled.

        Raises SlideError or StorageError where the bytes cannot be had at all.
        """
        filling = _Filling(self, plan, canvases, self.level.offsets[plan.tiles], self.level.counts[plan.tiles])
        with contextlib.ExitStack() as stack:
            pool = stack.enter_context(workers(threads)) if threads > 1 and len(plan.tiles) > PART_TILES else None
            run = pool.map if pool else map
            if self.source.is_remote:
                loads = [partial(filling.load, first, last) for first, last in filling.pieces()]
                for piece in ahead(stack.enter_context(workers(AHEAD)), loads, count=AHEAD):
                    for _ in run(partial(filling.copy_part, piece), range(0, len(piece.slots), PART_TILES)):
                        pass
            else:
                for _ in run(filling.load_part, range(0, len(plan.tiles), PART_TILES)):
                    pass
        return filling.failures


@dataclass(frozen=True, eq=False)
class _Filling:
    """One call of `fill`."""

    reader: LevelReader
    plan: ReadPlan
    canvases: Canvases
    offsets: Int64[np.ndarray, " planned_tile"]
    counts: Int64[np.ndarray, " planned_tile"]
    failures: Failures = field(default_factory=Failures)

    def pieces(self) -> list[tuple[int, int]]:
        """Return the first and the last tile (not included) of what is fetched from a store at a time."""
        before = np.cumsum(self.counts)
        piece = before // PIECE_BYTES + np.arange(len(before)) // PIECE_TILES
        cuts = [*np.flatnonzero(np.diff(piece, prepend=-1)).tolist(), len(piece)]
        return list(pairwise(cuts))

    def load(self, first: int, last: int) -> Piece:
        """Return some tiles of the plan with their bytes."""
        keys = [(self.reader.level.number, tile) for tile in self.plan.tiles[first:last]]
        offsets, counts = self.offsets[first:last].tolist(), self.counts[first:last].tolist()
        slots = self.reader.pool.held(keys)
        missing = [number for number, slot in enumerate(slots) if slot is None and counts[number]]
        contents = [_NOTHING] * len(keys)
        try:
            fetched = self.reader.source.fetch([offsets[n] for n in missing], [counts[n] for n in missing])
        except RaystpError:
            for key, slot in zip(keys, slots, strict=True):
                if slot is not None:
                    self.reader.pool.give_back(slot, key)
            raise
        for number, content in zip(missing, fetched, strict=True):
            contents[number] = content
        return Piece(first, slots, contents)

    def load_part(self, first: int) -> None:
        """Fetch, decode and copy some tiles: what was fetched is still in the processor's cache when it is decoded."""
        self.copy_part(self.load(first, min(first + PART_TILES, len(self.plan.tiles))), 0)

    def copy_part(self, piece: Piece, part: int) -> None:
        """Decode some tiles of a piece and copy them."""
        plan, reader, pool = self.plan, self.reader, self.reader.pool
        spare: Pixels | None = None
        for number in range(part, min(part + PART_TILES, len(piece.slots))):
            index, slot = piece.first + number, piece.slots[number]
            tile, copies = plan.tiles[index], plan.copies[plan.starts[index] : plan.starts[index + 1]]
            if slot is None:
                if self.failures.reasons and self.failures.before(copies):
                    continue
                if reader.in_place and plan.whole[index]:
                    canvas = self.canvases.whole(copies[0][0], reader.shape)
                    if canvas is not None:
                        if self._decoded(tile, piece.contents[number], canvas, copies):
                            self.canvases.complete(copies[0][0])
                        continue
                slot = pool.empty(reader.shape) if spare is None else spare
                spare = slot
                if not self._decoded(tile, piece.contents[number], slot, copies):
                    continue
            self.canvases.paste(copies, slot)
            if plan.again[index]:
                pool.give_back(slot, (reader.level.number, tile))
                spare = None if spare is slot else spare
            elif slot is not spare:
                pool.give_back(slot, None)
        if spare is not None:
            pool.give_back(spare, None)

    def _decoded(self, tile: int, content: memoryview, pixels: Pixels, copies: list[Copy]) -> bool:
        """Decode a tile, and say whether that went well."""
        if not content:
            pixels.fill(WHITE)
            return True
        try:
            self.reader.decode(content, pixels)
        except ValueError as error:
            for copy in copies:
                self.failures.add(copy[0], tile, str(error))
            return False
        return True
