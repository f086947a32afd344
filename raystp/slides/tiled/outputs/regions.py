"""The region of a level that each tile of a request needs: one by one, or computed for all at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from raystp.errors import SlideError
from raystp.slides.readers.resample import (
    LEVEL_ROUNDING,
    MAX_REGION,
    Box,
    Window,
    check_region,
    coarsest_level,
    source_window,
    square_box,
)

PLAIN_PX = 2.0**40
"""Coordinates below this are whole numbers of int64, also after rounding; all slides are smaller."""


@dataclass(frozen=True)
class SourceRegion:
    """The region of a level that one target needs."""

    level: int
    region: Window
    box: Box | None
    """The part of the region that is resampled to the target; None if the region is the target."""

    @property
    def buffer_bytes(self) -> int:
        """Memory for the region before it is resampled."""
        return self.region.width * self.region.height * 3 if self.box else 0


@dataclass(frozen=True)
class SlideLevels:
    """A slide's size in level-0 px, and level-0 px per px of each level. `where` begins its errors."""

    where: str
    width: int
    height: int
    downsamples: Sequence[float]

    def source_region(self, box: Box, columns: int, rows: int) -> SourceRegion | None:
        """Return the level and the region that a box needs, None if the box is outside the slide."""
        number = coarsest_level(self.downsamples, min(box.width / columns, box.height / rows))
        inner = box.scaled(1.0 / self.downsamples[number])
        region = source_window(inner, columns, rows)
        if not box.touches(self.width, self.height):
            return None
        check_region(self.where, box, region)
        is_crop = inner.is_crop(columns, rows)
        return SourceRegion(number, region, None if is_crop else inner.moved(-float(region.left), -float(region.top)))

    def source_regions(
        self, boxes: Float64[np.ndarray, "tile 3"], tile_px: int
    ) -> tuple[dict[int, SourceRegion | None], dict[int, str]]:
        """Return the same for boxes (x, y, side) by their numbers, and the reasons of those that cannot be read."""
        is_plain = (np.abs(boxes) < PLAIN_PX).all(axis=1) & (boxes[:, 2] > 0)
        resampled, found = self._resampled(boxes, is_plain, tile_px)
        faults: dict[int, str] = {}
        for tile in np.flatnonzero(~resampled).tolist():
            x, y, side = boxes[tile].tolist()
            try:
                found[tile] = self.source_region(square_box(self.where, (x, y), side, tile_px), tile_px, tile_px)
            except SlideError as error:
                faults[tile] = str(error)
        return found, faults

    def _resampled(
        self, boxes: Float64[np.ndarray, "tile 3"], is_plain: Bool[np.ndarray, " tile"], tile_px: int
    ) -> tuple[Bool[np.ndarray, " tile"], dict[int, SourceRegion | None]]:
        """Return which boxes are inside the slide, resampled and not too large, and the regions of these."""
        start = np.where(is_plain[:, None], boxes[:, :2], 0.0)
        stop = start + np.where(is_plain, boxes[:, 2], 1.0)[:, None]
        kept = is_plain & ((start < (self.width, self.height)) & (stop > 0)).all(axis=1)
        needed = ((stop - start) / tile_px).min(axis=1) * (1 + LEVEL_ROUNDING)
        level, factor = np.zeros(len(boxes), np.int64), np.full(len(boxes), self.downsamples[0])
        for number, downsample in enumerate(self.downsamples):
            is_coarser = (downsample <= needed) & (downsample > factor)
            level[is_coarser], factor[is_coarser] = number, downsample
        start, stop = start * (1.0 / factor)[:, None], stop * (1.0 / factor)[:, None]
        extent = stop - start
        reach = np.ceil(np.maximum(1.0, extent / tile_px)) + 1
        corner, end = np.floor(start) - reach, np.ceil(stop) + reach
        kept &= (end - corner).prod(axis=1) <= MAX_REGION
        kept &= ~((start == np.floor(start)) & (extent == tile_px)).all(axis=1)
        windows = np.concatenate([corner, end - corner], axis=1)[kept].astype(np.int64).tolist()
        inner = np.concatenate([start - corner, stop - corner], axis=1)[kept].tolist()
        parts = zip(np.flatnonzero(kept).tolist(), level[kept].tolist(), windows, inner, strict=True)
        return kept, {tile: SourceRegion(number, Window(*window), Box(*box)) for tile, number, window, box in parts}
