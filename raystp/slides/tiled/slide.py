"""Slides that are a supported tiled TIFF (Aperio SVS, plain tiled TIFF), read by their stored tiles.

A batch of tile boxes becomes a read plan (`read_plan`). By it each stored tile is fetched and decoded once, in the
file's order, and copied to every tile that it overlaps. The pixels are equal to OpenSlide's without resampling, and at
level 0. At a coarser level with a fractional downsample OpenSlide shifts its reads by up to half a level-0 pixel; this
reader does not.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from raystp.errors import SlideError
from raystp.slides.readers.opened import MAX_DAMAGED_SHARE, DamagedRegion, SlideContext
from raystp.slides.readers.resample import (
    MAX_REGION,
    WHITE,
    Box,
    coarsest_level,
    shrink_image,
    square_box,
)
from raystp.slides.tiled.buffers import BufferPool, RegionBuffers
from raystp.slides.tiled.open import TiledFile
from raystp.slides.tiled.outputs.crops import CropOutputs
from raystp.slides.tiled.outputs.regions import SlideLevels, SourceRegion
from raystp.slides.tiled.outputs.resampled import Regions, ResampledOutputs
from raystp.slides.tiled.read_again import Ahead, Windows, band_bytes, merged, stored_tiles
from raystp.slides.tiled.read_plan import ReadPlan, make_read_plan
from raystp.slides.tiled.reader import LevelReader, OutputBuffers, ReadOptions
from raystp.slides.tiled.remote_source import RemoteSource
from raystp.units import Level0Pixels, TilePixels

POOL_BYTES = (8 << 20, 256 << 20)
"""Least and most memory for decoded tiles; between these, the stored tiles under a row of the largest tiles."""

REGION_BYTES = 128 << 20
"""Memory for regions to be resampled; a batch that needs more is read in parts."""

ONE_THREAD = ReadOptions()


@dataclass(frozen=True, eq=False)
class _LevelRead:
    """Windows of one level that are read together."""

    level: int
    windows: Windows
    outputs: Callable[[ReadPlan], OutputBuffers]


class TiledSlide:
    """A slide read by its own grid of tiles. Threads may share it."""

    reader = "tiled"

    def __init__(self, file: TiledFile, context: SlideContext) -> None:
        levels = file.pyramid.levels
        self._where = context.where
        self._resources = context.resources
        self._downsamples = [level.downsample for level in levels]
        self._pool = BufferPool(POOL_BYTES[0])
        self._region_buffers = RegionBuffers(REGION_BYTES // 2)
        self._readers = [LevelReader(level, file.source, self._pool) for level in levels]
        self._source = file.source
        self._is_open = True
        self.name, self.vendor = context.name, file.pyramid.vendor
        self.width, self.height = levels[0].width, levels[0].height
        self._levels = SlideLevels(self._where, self.width, self.height, self._downsamples)
        self.mpp, self.mpp_from, self.own_mpp = context.scale.mpp, context.scale.source, context.scale.own
        self.bounds, self.warnings, self.empty = context.bounds, context.warnings, context.empty
        self.damaged: list[DamagedRegion] = []

    def read(
        self, x: Level0Pixels, y: Level0Pixels, side: Level0Pixels, tile_px: TilePixels
    ) -> UInt8[np.ndarray, "pixel pixel 3"]:
        """Return the tile with top-left corner (x, y) as `tile_px` x `tile_px`; see `Slide`."""
        return self._render(square_box(self._where, (x, y), side, tile_px), tile_px, tile_px)

    def read_boxes(
        self, boxes: Float64[np.ndarray, "tile 3"], tiles: UInt8[np.ndarray, "tile pixel pixel 3"], *, threads: int
    ) -> None:
        """Fill `tiles` with the boxes (x, y, side), in the order given; see `read_tiles` in `slides.open`."""
        faults = self._fill_boxes(boxes, tiles, ReadOptions(threads))
        if faults:
            tile = min(faults)
            raise tile_error(self.name, tile, boxes[tile].tolist(), faults[tile])

    def read_boxes_or_fail(
        self, boxes: Float64[np.ndarray, "tile 3"], tiles: UInt8[np.ndarray, "tile pixel pixel 3"], *, threads: int
    ) -> dict[int, str]:
        """Fill `tiles` and return the reason of each that fails; see `read_tiles_or_fail` in `slides.open`."""
        faults = self._fill_boxes(boxes, tiles, ReadOptions(threads, every=True))
        return {tile: str(tile_error(self.name, tile, boxes[tile].tolist(), faults[tile])) for tile in faults}

    def _fill_boxes(
        self,
        boxes: Float64[np.ndarray, "tile 3"],
        tiles: UInt8[np.ndarray, "tile pixel pixel 3"],
        options: ReadOptions,
    ) -> dict[int, str]:
        """Fill `tiles`; return the reason for each tile that fails, at least for the first one."""
        tile_px = tiles.shape[1]
        is_crop = self._crops(boxes, tile_px)
        reads = [self._crops_read(tiles, boxes, is_crop)] if is_crop.any() else []
        faults: dict[int, str] = {}
        if not is_crop.all():
            others = np.flatnonzero(~is_crop).tolist()
            regions, reasons = self._levels.source_regions(boxes[others], tile_px)
            reads += self._resampled_reads(tiles, {others[number]: source for number, source in regions.items()})
            faults = {others[number]: reason for number, reason in reasons.items()}
        return faults | self._fill_all(reads, options)

    def prefetch(self, boxes: Float64[np.ndarray, "tile 3"], tile_px: int) -> None:
        """Start to fetch the bytes of these boxes from the store; do nothing for a local file.

        A box that cannot be read is skipped here; reading it raises the error.
        """
        if isinstance(self._source, RemoteSource) and len(boxes):
            self._source.prefetch(*self.stored_ranges(boxes, tile_px))

    def stored_ranges(self, boxes: Float64[np.ndarray, "tile 3"], tile_px: int) -> tuple[list[int], list[int]]:
        """Return offset and length of each stored tile that the boxes need, once; nothing for an impossible box."""
        corners: dict[int, list[tuple[int, int, int, int]]] = {}
        for source in self._levels.source_regions(boxes, tile_px)[0].values():
            if source is not None:
                region = source.region
                corners.setdefault(source.level, []).append((region.left, region.top, region.width, region.height))
        offsets, counts = [], []
        for number, found in corners.items():
            level = self._readers[number].level
            tiles = np.unique(stored_tiles(level, Windows(np.arange(len(found)), *np.array(found, np.int64).T)))
            stored = tiles[level.counts[tiles] > 0]
            for plane_offsets, plane_counts in ((level.offsets, level.counts), *level.green_blue):
                offsets += plane_offsets[stored].tolist()
                counts += plane_counts[stored].tolist()
        return offsets, counts

    def fetched(self) -> tuple[int, int]:
        """Return the bytes and requests that an object has taken since it was opened; nothing for a local file."""
        source = self._source
        return (source.fetched_bytes, source.requests) if isinstance(source, RemoteSource) else (0, 0)

    def overview_bytes(self) -> int:
        """Return the bytes of the coarsest level, which finding the tissue reads at most, where it is fine enough."""
        return int(self._readers[-1].level.counts.sum())

    def thumbnail(self, longest: int) -> UInt8[np.ndarray, "row col 3"]:
        """Return the whole slide with `longest` px along its longer side; see `Slide`."""
        needed = max(self.width, self.height) / longest
        number = coarsest_level(self._downsamples, needed)
        options = ReadOptions(damaged={})
        read = partial(self._render, options=options)
        image = shrink_image((self.width, self.height), longest, needed / self._downsamples[number], read)
        self.damaged = [self._damage(*key, reason) for key, reason in sorted((options.damaged or {}).items())]
        if len(self.damaged) > MAX_DAMAGED_SHARE * np.count_nonzero(self._readers[number].level.counts):
            raise SlideError(self.damaged[0].reason)
        return image

    def close(self) -> None:
        """Release the source of bytes and the buffers."""
        self._is_open = False
        self._pool.clear()
        self._region_buffers.clear()
        self._resources.close()

    def __enter__(self) -> "TiledSlide":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _render(
        self, box: Box, columns: int, rows: int, options: ReadOptions = ONE_THREAD
    ) -> UInt8[np.ndarray, "row col 3"]:
        tiles = np.empty((1, rows, columns, 3), np.uint8)
        reads = list(self._resampled_reads(tiles, {0: self._levels.source_region(box, columns, rows)}))
        for reason in self._fill_all(reads, options).values():
            raise SlideError(reason)
        image: UInt8[np.ndarray, "row col 3"] = tiles[0]
        return image

    def _crops(self, boxes: Float64[np.ndarray, "tile 3"], tile_px: int) -> Bool[np.ndarray, " tile"]:
        """Return which boxes are crops of level 0; computed for all at once, which is cheaper."""
        x, y, side = boxes.T
        if coarsest_level(self._downsamples, 1.0) > 0 or tile_px**2 > MAX_REGION:
            return np.zeros(len(boxes), np.bool_)
        touches = (x < self.width) & (y < self.height) & (x + tile_px > 0) & (y + tile_px > 0)
        crops: Bool[np.ndarray, " tile"] = touches & (x == np.floor(x)) & (y == np.floor(y)) & (side == tile_px)
        return crops

    def _crops_read(
        self,
        tiles: UInt8[np.ndarray, "tile pixel pixel 3"],
        boxes: Float64[np.ndarray, "tile 3"],
        is_crop: Bool[np.ndarray, " tile"],
    ) -> "_LevelRead":
        """Return the read of the tiles that are crops of level 0."""
        target = np.flatnonzero(is_crop)
        left, top, side = boxes[target].astype(np.int64).T
        is_partly_outside = (left < 0) | (top < 0) | (left + side > self.width) | (top + side > self.height)
        tiles[target[is_partly_outside]] = WHITE
        return _LevelRead(0, Windows(target, left, top, side, side), partial(CropOutputs, tiles))

    def _resampled_reads(
        self, tiles: UInt8[np.ndarray, "tile row col 3"], regions: Mapping[int, SourceRegion | None]
    ) -> "Iterator[_LevelRead]":
        """Yield the reads of tiles from their regions, level by level, in parts that fit in memory."""
        for tile in [tile for tile, source in regions.items() if source is None]:
            tiles[tile] = WHITE
        for part in self._parts([(tile, source) for tile, source in regions.items() if source is not None]):
            number = next(iter(part.values())).level
            areas = [source.region for source in part.values()]
            corners = [(tile, r.left, r.top, r.width, r.height) for tile, r in zip(part, areas, strict=True)]
            windows = Windows(*np.array(corners, np.int64).T)
            level = self._readers[number].level
            yield _LevelRead(
                number, windows, partial(ResampledOutputs, tiles, Regions(level, part, self._region_buffers))
            )

    def _parts(self, regions: list[tuple[int, SourceRegion]]) -> Iterator[dict[int, SourceRegion]]:
        """Yield the regions in parts of one level each, in the order of its rows of tiles."""

        def position(item: tuple[int, SourceRegion]) -> tuple[int, int, int]:
            _, source = item
            row = source.region.top // self._readers[source.level].level.tile_height
            return source.level, row, source.region.left

        part: dict[int, SourceRegion] = {}
        part_bytes = 0
        for tile, source in sorted(regions, key=position):
            is_other_level = bool(part) and source.level != next(iter(part.values())).level
            if part and (part_bytes + source.buffer_bytes > REGION_BYTES or is_other_level):
                yield part
                part, part_bytes = {}, 0
            part[tile] = source
            part_bytes += source.buffer_bytes
        if part:
            yield part

    def _fill_all(self, reads: "list[_LevelRead]", options: ReadOptions) -> dict[int, str]:
        """Do the reads of a call in turn; return the reason for each target that fails."""
        if not self._is_open:
            msg = f"{self._where} is closed"
            raise SlideError(msg)
        levels = sorted({read.level for read in reads})
        calls = {level: merged([read.windows for read in reads if read.level == level]) for level in levels}
        self._grow_pool(calls)
        faults: dict[int, str] = {}
        for number, read in enumerate(reads):
            later = merged([other.windows for other in reads[number + 1 :] if other.level == read.level])
            plan = make_read_plan(self._readers[read.level].level, read.windows, Ahead(later, calls[read.level]))
            failures = self._readers[read.level].fill(plan, read.outputs(plan), options)
            for target, (tile, reason) in failures.reasons.items():
                faults[target] = self._damage(read.level, tile, reason).reason
        return faults

    def _grow_pool(self, calls: Mapping[int, Windows]) -> None:
        """Give decoded tiles the memory that the next call needs to find those of this call."""
        bands = [band_bytes(self._readers[level].level, windows) for level, windows in calls.items()]
        known = [band for band in bands if band is not None]
        self._pool.grow(min(sum(known), POOL_BYTES[1]) if len(known) == len(bands) else POOL_BYTES[1])

    def _damage(self, number: int, tile: int, reason: str) -> DamagedRegion:
        """Return the level-0 region of a stored tile that cannot be decoded."""
        level = self._readers[number].level
        column, row = tile % level.across * level.tile_width, tile // level.across * level.tile_height
        x, y = round(column * level.downsample), round(row * level.downsample)
        right = round(min(column + level.tile_width, level.width) * level.downsample)
        bottom = round(min(row + level.tile_height, level.height) * level.downsample)
        reason = f"{self._where} cannot be read at x {x}, y {y}, level {number}: {reason}"
        return DamagedRegion(x, y, min(right, self.width) - x, min(bottom, self.height) - y, reason)


def tile_error(name: str, tile: int, box: list[float], error: object) -> SlideError:
    """Return the error for one tile of a request, with its number and its box."""
    x, y, side = box
    return SlideError(f"tile {tile} (x {x:.1f}, y {y:.1f}, side {side:.1f} px) of slide {name!r}: {error}")
