"""Slides that are a tiled TIFF of a known make (Aperio's SVS, plain tiled TIFF), read at the speed of their codec.

The grain of such a file is its stored tile. A batch of squares is turned into a plan (`read_plan`), by which each
stored tile is fetched and decoded once, in the file's order, and copied to every square that it lies under. The pixels
are OpenSlide's, to the last bit, where nothing is resampled or level 0 is; at a coarser level whose factor is no whole
number OpenSlide moves what it reads by up to half a level-0 pixel, and this reader does not.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from raystp.errors import SlideError
from raystp.slides.readers.resample import MAX_REGION, WHITE, Box, check_region, shrink, square, window
from raystp.slides.readers.scale import SlideScale
from raystp.slides.tiled.buffers import SlotPool
from raystp.slides.tiled.canvases import Aim, Crops, Regions
from raystp.slides.tiled.open import Tiled
from raystp.slides.tiled.read_plan import ReadPlan, Windows, read_plan
from raystp.slides.tiled.reader import Canvases, LevelReader
from raystp.slides.tiled.remote import RemoteSource
from raystp.units import Level0Pixels, TilePixels

_ROUNDING = 1e-3
"""A level of 16,000 x 12,345 px over one of 64,000 x 49,381 has downsample 4.00004; it serves where 4 is needed."""

POOL_BYTES = (8 << 20, 256 << 20)
"""Least and most memory for decoded tiles; between them, two rows of the finest level's."""

CANVAS_BYTES = 128 << 20
"""Memory for the windows of squares that are to be resampled; a batch that needs more is read in parts."""


class TiledSlide:
    """A slide behind its own grid of tiles. Reads may come from many threads at once."""

    reader = "tiled"

    def __init__(self, name: str, tiled: Tiled, *, where: str, scale: SlideScale, keep: contextlib.ExitStack) -> None:
        levels = tiled.pyramid.levels
        self._where = where
        self._keep = keep
        self._downsamples = [level.downsample for level in levels]
        self._pool = SlotPool(min(max(POOL_BYTES[0], 2 * levels[0].band), POOL_BYTES[1]))
        self._readers = [LevelReader(level, tiled.source, self._pool) for level in levels]
        self._source = tiled.source
        self._open = True
        self.name = name
        self.width, self.height = levels[0].width, levels[0].height
        self.mpp = scale.mpp
        self.mpp_from = scale.source

    def read(
        self, x: Level0Pixels, y: Level0Pixels, side: Level0Pixels, pixels: TilePixels
    ) -> UInt8[np.ndarray, "pixel pixel 3"]:
        """Return the square whose top-left corner is (x, y), as `pixels` x `pixels`; see `Slide`."""
        return self._render(square(self._where, (x, y), side, pixels), pixels, pixels)

    def read_squares(
        self, squares: Float64[np.ndarray, "tile 3"], tiles: UInt8[np.ndarray, "tile pixel pixel 3"], *, threads: int
    ) -> None:
        """Fill `tiles` with squares (x, y, side), in the order given; see `read_tiles` in `open`."""
        pixels = tiles.shape[1]
        crops = self._crops(squares, pixels)
        aims: dict[int, Aim | None] = {}
        faults: dict[int, str] = {}
        for tile in np.flatnonzero(~crops).tolist():
            x, y, side = squares[tile].tolist()
            try:
                aims[tile] = self._aim(square(self._where, (x, y), side, pixels), pixels, pixels)
            except SlideError as error:
                faults[tile] = str(error)
        faults |= self._cropped(tiles, squares, crops, threads=threads)
        faults |= self._resampled(tiles, aims, threads=threads)
        if faults:
            tile = min(faults)
            raise unreadable(self.name, tile, squares[tile].tolist(), faults[tile])

    def expect(self, squares: Float64[np.ndarray, "tile 3"], pixels: int) -> None:
        """Let the store begin to send what these squares need, before they are read; on this machine it does nothing.

        A square that cannot be read is left out here: reading it says why.
        """
        if not isinstance(self._source, RemoteSource) or not len(squares):
            return
        corners: dict[int, list[tuple[int, int, int, int]]] = {}
        for x, y, side in squares.tolist():
            with contextlib.suppress(SlideError):
                aim = self._aim(square(self._where, (x, y), side, pixels), pixels, pixels)
                if aim is not None:
                    region = aim.region
                    corners.setdefault(aim.level, []).append((region.left, region.top, region.width, region.height))
        offsets, counts = [], []
        for number, found in corners.items():
            level = self._readers[number].level
            plan = read_plan(level, Windows(np.arange(len(found)), *np.array(found, np.int64).T))
            stored = [tile for tile in plan.tiles if level.counts[tile]]
            offsets += level.offsets[stored].tolist()
            counts += level.counts[stored].tolist()
        self._source.expect(offsets, counts)

    def thumbnail(self, longest: int) -> UInt8[np.ndarray, "row col 3"]:
        """Return the whole slide with `longest` px along its longer side; see `Slide`."""
        needed = max(self.width, self.height) / longest
        ratio = needed / self._downsamples[self._level(needed)]
        return shrink((self.width, self.height), longest, ratio, self._render)

    def close(self) -> None:
        """Give up the bytes' source and the memory."""
        self._open = False
        self._pool.clear()
        self._keep.close()

    def __enter__(self) -> "TiledSlide":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _render(self, box: Box, columns: int, rows: int) -> UInt8[np.ndarray, "row col 3"]:
        tiles = np.empty((1, rows, columns, 3), np.uint8)
        for reason in self._resampled(tiles, {0: self._aim(box, columns, rows)}, threads=1).values():
            raise SlideError(reason)
        picture: UInt8[np.ndarray, "row col 3"] = tiles[0]
        return picture

    def _level(self, needed: float) -> int:
        """Return the coarsest level that is no coarser than `needed` level-0 px per output px."""
        fine = [level for level, downsample in enumerate(self._downsamples) if downsample <= needed * (1 + _ROUNDING)]
        return max(fine, key=self._downsamples.__getitem__, default=0)

    def _aim(self, box: Box, columns: int, rows: int) -> Aim | None:
        """Return what a box takes of which level, None where it lies outside the slide."""
        number = self._level(min(box.width / columns, box.height / rows))
        inner = box.scaled(1.0 / self._downsamples[number])
        region = window(inner, columns, rows)
        if not box.touches(self.width, self.height):
            return None
        check_region(self._where, box, region)
        crop = inner.is_crop(columns, rows)
        return Aim(number, region, None if crop else inner.moved(-float(region.left), -float(region.top)))

    def _crops(self, squares: Float64[np.ndarray, "tile 3"], pixels: int) -> Bool[np.ndarray, " tile"]:
        """Say which squares are pixels of level 0 as they are; that is decided for all at once, as it costs less."""
        x, y, side = squares.T
        if self._level(1.0) > 0 or pixels**2 > MAX_REGION:
            return np.zeros(len(squares), np.bool_)
        touches = (x < self.width) & (y < self.height) & (x + pixels > 0) & (y + pixels > 0)
        crops: Bool[np.ndarray, " tile"] = touches & (x == np.floor(x)) & (y == np.floor(y)) & (side == pixels)
        return crops

    def _cropped(
        self,
        tiles: UInt8[np.ndarray, "tile pixel pixel 3"],
        squares: Float64[np.ndarray, "tile 3"],
        crops: Bool[np.ndarray, " tile"],
        *,
        threads: int,
    ) -> dict[int, str]:
        """Fill the tiles that are crops of level 0; return why which ones cannot be."""
        target = np.flatnonzero(crops)
        left, top, side = squares[target].astype(np.int64).T
        hanging = (left < 0) | (top < 0) | (left + side > self.width) | (top + side > self.height)
        tiles[target[hanging]] = WHITE
        return self._filled(0, Windows(target, left, top, side, side), lambda _: Crops(tiles), threads)

    def _resampled(
        self, tiles: UInt8[np.ndarray, "tile row col 3"], aims: Mapping[int, Aim | None], *, threads: int
    ) -> dict[int, str]:
        """Fill the tiles of these aims, level by level, in parts whose windows fit in memory; return what cannot be."""
        faults: dict[int, str] = {}
        for tile in [tile for tile, aim in aims.items() if aim is None]:
            tiles[tile] = WHITE
        for part in self._parts([(tile, aim) for tile, aim in aims.items() if aim is not None]):
            number = next(iter(part.values())).level
            regions = [aim.region for aim in part.values()]
            corners = [(tile, r.left, r.top, r.width, r.height) for tile, r in zip(part, regions, strict=True)]
            windows = Windows(*np.array(corners, np.int64).T)
            level = self._readers[number].level
            faults |= self._filled(number, windows, partial(Regions, tiles, part, level), threads)
        return faults

    def _parts(self, aims: list[tuple[int, Aim]]) -> Iterator[dict[int, Aim]]:
        """Yield the aims in parts of one level each, in the order of its rows of tiles."""

        def place(item: tuple[int, Aim]) -> tuple[int, int, int]:
            _, aim = item
            return aim.level, aim.region.top // self._readers[aim.level].level.tile_height, aim.region.left

        part: dict[int, Aim] = {}
        held = 0
        for tile, aim in sorted(aims, key=place):
            if part and (held + aim.bytes > CANVAS_BYTES or aim.level != next(iter(part.values())).level):
                yield part
                part, held = {}, 0
            part[tile] = aim
            held += aim.bytes
        if part:
            yield part

    def _filled(
        self, number: int, windows: Windows, canvases: Callable[[ReadPlan], Canvases], threads: int
    ) -> dict[int, str]:
        """Read windows of a level onto canvases; return why which targets cannot be read."""
        if not self._open:
            msg = f"{self._where} is closed"
            raise SlideError(msg)
        level = self._readers[number].level
        plan = read_plan(level, windows)
        failures = self._readers[number].fill(plan, canvases(plan), threads=threads)
        faults: dict[int, str] = {}
        for target, (tile, reason) in failures.reasons.items():
            column, row = tile % level.across * level.tile_width, tile // level.across * level.tile_height
            x, y = round(column * level.downsample), round(row * level.downsample)
            faults[target] = f"{self._where} cannot be read at x {x}, y {y}, level {number}: {reason}"
        return faults


def unreadable(name: str, tile: int, square: list[float], error: object) -> SlideError:
    """Return the error of a tile, by its number, of those that were asked of a slide."""
    x, y, side = square
    return SlideError(f"tile {tile} (x {x:.1f}, y {y:.1f}, side {side:.1f} px) of slide {name!r}: {error}")
