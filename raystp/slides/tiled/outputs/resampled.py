"""Targets that are resampled from regions of a level.

The thread that copies the last part of a target's region resamples it, and then gives the region's memory back.
"""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from raystp.slides.readers.resample import WHITE, resample_into
from raystp.slides.tiled.buffers import RegionBuffers
from raystp.slides.tiled.levels import Level
from raystp.slides.tiled.outputs.copies import Copier, Pixels, Tiles
from raystp.slides.tiled.outputs.regions import SourceRegion
from raystp.slides.tiled.read_plan import ReadPlan


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions of a level by target, and the memory that they share."""

    level: Level
    sources: Mapping[int, SourceRegion]
    buffers: RegionBuffers


class ResampledOutputs:
    """Targets that are resampled, or copied without resampling, as their source regions say."""

    def __init__(self, tiles: Tiles, regions: Regions, plan: ReadPlan) -> None:
        self._tiles, self._regions = tiles, regions
        self._copier = Copier(tiles, plan, past_cache=False)
        self._rect_targets: list[int] = plan.rects[:, 0].tolist()
        self._parts_left = dict(Counter(self._rect_targets))
        self._buffers: dict[int, Pixels] = {}
        self._lock = threading.Lock()
        for target, source in regions.sources.items():
            if target not in self._parts_left or not (source.box or self._is_inside(source)):
                tiles[target] = WHITE

    def direct_buffer(self, target: int, shape: tuple[int, int, int]) -> Pixels | None:
        """Return a target's memory to decode into; see `OutputBuffers`."""
        if self._regions.sources[target].box is None:
            buffer = self._tiles[target]
        else:
            with self._lock:
                self._allocate(target)
                buffer = self._buffers[target]
        return buffer if buffer.shape == shape and buffer.flags.c_contiguous else None

    def _allocate(self, target: int) -> None:
        """Give a target's region memory, if it has none; the lock is held."""
        source = self._regions.sources[target]
        if source.box is None or target in self._buffers:
            return
        buffer = self._regions.buffers.take(source.region.height, source.region.width)
        if not self._is_inside(source):  # otherwise stored tiles cover all of it
            buffer.fill(WHITE)
        self._copier.set_target(target, buffer)
        self._buffers[target] = buffer

    def copy(self, first: int, last: int, stored: Pixels) -> None:
        """Copy parts of a stored tile; see `OutputBuffers`."""
        targets = self._rect_targets[first:last]
        new = [target for target in targets if target not in self._buffers]
        if new:
            with self._lock:
                for target in new:
                    self._allocate(target)
        self._copier.copy(first, last, stored)
        self._finish(targets)

    def finish_part(self, target: int) -> None:
        """Count one part of a target as done, and resample the target after the last; see `OutputBuffers`."""
        self._finish([target])

    def _finish(self, targets: list[int]) -> None:
        """Count one part of each target as done; resample those that are complete."""
        complete = []
        with self._lock:
            for target in targets:
                self._parts_left[target] -= 1
                if not self._parts_left[target] and target in self._buffers:
                    complete.append((target, self._buffers.pop(target)))
        for target, buffer in complete:
            box = self._regions.sources[target].box
            assert box is not None  # others have no buffer
            resample_into(self._tiles[target], buffer, box)
            self._regions.buffers.give_back(buffer)

    def _is_inside(self, source: SourceRegion) -> bool:
        region, level = source.region, self._regions.level
        right, bottom = region.left + region.width, region.top + region.height
        return region.left >= 0 and region.top >= 0 and right <= level.width and bottom <= level.height
