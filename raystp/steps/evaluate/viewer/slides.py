"""A slide of a prediction as a map: its tiles, their layers, and what the prediction says of its own doubt."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

from raystp import tables
from raystp.evaluate.metrics.score import SectionOutcome
from raystp.evaluate.report.viewer.content import MEASURED, PREDICTED, SPREAD, MapSlide, SlideThumbnail
from raystp.evaluate.report.viewer.scores import GeneIntervals
from raystp.expression.sections import SectionCounts
from raystp.steps.evaluate.predictions import Prediction
from raystp.steps.evaluate.report import slide_thumbnail, tile_boxes
from raystp.steps.evaluate.viewer.nearest import Neighbours, Reference
from raystp.steps.evaluate.viewer.pictures import MOST, tile_pictures
from raystp.steps.evaluate.viewer.stored import stored_maps
from raystp.storage import StoragePath
from raystp.units import Level0Pixels

MOST_EXPLAINED = 5000
"""Tiles of a slide whose neighbours are searched again: a click on a tile of a larger slide does not explain it."""


@dataclass(frozen=True)
class MapReader:
    """One model's prediction, and the reference it was made from."""

    first: Prediction
    store: StoragePath
    reference: Reference | None
    most_pictures: int = MOST // 3
    """A slide with more tiles has no pictures of them: they are cut from its thumbnail in the browser."""

    @classmethod
    def of(cls, first: Prediction, store: str) -> "MapReader":
        """Return the reader of a prediction; open its reference if it has one."""
        return cls(first, StoragePath.of(store), Reference.of(first, StoragePath.of(store)))

    def measured(
        self, counts: SectionCounts, outcome: SectionOutcome, scores: GeneIntervals
    ) -> tuple[MapSlide, Neighbours | None]:
        """Return a section's spots that have a tile: measured, predicted, and the prediction's doubt."""
        table = self._predictions(counts.slide)
        rows = np.flatnonzero(pc.is_in(table["spot"], value_set=tables.strings(counts.spots)).to_numpy())
        layers = {MEASURED: outcome.measured, PREDICTED: tables.matrix(table["expression"].take(rows))}
        slide = MapSlide(
            name=counts.section,
            note=f"Slide {counts.slide}, patient {counts.patient}, {len(rows)} spots.",
            thumbnail=self._thumbnail(counts.slide),
            shape="circle",
            xy=outcome.xy,
            size=Level0Pixels(counts.diameter_px),
            spots=table["spot"].take(rows).to_pylist(),
            layers=layers,
            scores=scores,
        )
        return self._with_doubt(slide, counts.slide, rows)

    def predicted(self, name: str) -> tuple[MapSlide, Neighbours | None]:
        """Return all tiles of a slide without measurement."""
        table = self._predictions(name)
        boxes = tile_boxes(table)
        slide = MapSlide(
            name=name,
            note=f"{len(boxes)} tiles without measurement.",
            thumbnail=self._thumbnail(name),
            shape="square",
            xy=boxes[:, :2] + boxes[:, 2:] / 2,
            size=Level0Pixels(float(np.median(boxes[:, 2]))),
            layers={PREDICTED: tables.matrix(table["expression"])},
        )
        return self._with_doubt(slide, name, np.arange(len(boxes)))

    def _with_doubt(
        self, slide: MapSlide, name: str, rows: Int64[np.ndarray, "_"]
    ) -> tuple[MapSlide, Neighbours | None]:
        stored = stored_maps(self.first.prediction, self.store, name).select(rows)
        found = None
        if self.reference is not None and len(rows) <= MOST_EXPLAINED:
            found = self.reference.neighbours(name, rows)
            boxes = tile_boxes(self._predictions(name))[rows]
            if len(rows) <= self.most_pictures:
                slide = replace(slide, pictures=tile_pictures(self.first.embeddings(self.store.uri), name, boxes))
        layers = {**slide.layers, **stored.layers}
        if found is not None:
            layers.setdefault(SPREAD, found.spread)
        slide = replace(slide, layers=layers, distance=stored.distance, far_beyond=stored.far_beyond)
        return slide, found

    def _thumbnail(self, slide: str) -> SlideThumbnail:
        return slide_thumbnail(self.first.embeddings(self.store.uri), slide)

    def _predictions(self, slide: str) -> pa.Table:
        return self.first.prediction.table(f"predictions/{slide}.parquet", tables.predictions(len(self.first.genes)))
