"""Channels of a heat map: the genes of a slide on its raster, a few at a time, and how a viewer shows them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float32

from raystp.interop.outputs.folders import plain_json
from raystp.interop.outputs.raster import EMPTY, Raster, raster_of
from raystp.interop.outputs.slide import SlideExpression

BLOCK_BYTES = 256 << 20
"""Memory for the values of the genes that are drawn at a time."""

COLOURS = ("FF0000", "00FF00", "0000FF", "FF00FF", "00FFFF", "FFFF00")
"""Colours of the channels, in turn."""

Window = tuple[float, float]


@dataclass(frozen=True)
class HeatMap:
    """The maps of a slide's genes."""

    slide: SlideExpression
    raster: Raster

    @classmethod
    def of(cls, slide: SlideExpression) -> "HeatMap":
        """Return the maps of a slide; raises FormatError for one without tiles."""
        return cls(slide, raster_of(slide.boxes, slide.slide))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns."""
        rows, columns = self.raster.tile.shape
        return len(self.slide.genes), rows, columns

    @property
    def step_um(self) -> float:
        """Side of a px in um."""
        return self.raster.step * self.slide.mpp

    @property
    def first_um(self) -> tuple[float, float]:
        """Centre (x, y) of the first px in um from the slide's corner."""
        x, y = self.raster.first
        return x * self.slide.mpp, y * self.slide.mpp

    @property
    def source(self) -> dict[str, Any]:
        """The provenance, and how tiles became px, as plain JSON values."""
        about = {"slide": self.slide.slide, "mpp": self.slide.mpp, "rasterisation": self.raster.method}
        found: dict[str, Any] = plain_json({**about, **self.slide.provenance})
        return found

    def planes(self) -> Iterator[Float32[np.ndarray, "row col"]]:
        """Yield the map of each gene, NaN where there is no tile."""
        tile = self.raster.tile
        known = tile != EMPTY
        block = max(1, BLOCK_BYTES // (4 * max(1, len(self.slide.boxes))))
        for first in range(0, len(self.slide.genes), block):
            columns = np.arange(first, min(first + block, len(self.slide.genes)))
            for values in self.slide.values.select(columns).read().T:
                plane = np.full(tile.shape, np.nan, np.float32)
                plane[known] = values[tile[known]]
                yield plane

    @cached_property
    def windows(self) -> list[Window]:
        """Least and greatest value of each gene; (0, 1) for one without values, and never of width 0."""
        low = np.full(len(self.slide.genes), np.inf)
        high = -low
        for _, slab in self.slide.values.slabs():
            low = np.fmin(low, np.where(np.isnan(slab), np.inf, slab).min(axis=0))
            high = np.fmax(high, np.where(np.isnan(slab), -np.inf, slab).max(axis=0))
        pairs = zip(low.tolist(), high.tolist(), strict=True)
        return [(0.0, 1.0) if first > last else (first, last if last > first else first + 1) for first, last in pairs]

    @property
    def notes(self) -> list[str]:
        """What a reader should know, a sentence each."""
        return [] if self.raster.method.startswith("one px") else [self.raster.method]
