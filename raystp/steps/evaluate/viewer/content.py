"""The maps of an evaluation against measured spots: measured sections first, then slides without measurement."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

from raystp import tables
from raystp.artifacts import Artifact
from raystp.evaluate.metrics.genes import GeneSets, genes_to_show, pcc_where_measured
from raystp.evaluate.metrics.score import SectionOutcome
from raystp.evaluate.report.viewer.content import MEASURED, PREDICTED, SPREAD, MapContent, MapSlide
from raystp.evaluate.report.viewer.scores import GeneIntervals, gene_scores
from raystp.expression.sections import SectionCounts, sections_of
from raystp.missing import column_means
from raystp.steps.evaluate.config import EvaluateConfig
from raystp.steps.evaluate.predictions import Prediction
from raystp.steps.evaluate.report import slide_thumbnail, tile_boxes
from raystp.steps.evaluate.spots.outcomes import ComparedSections
from raystp.steps.evaluate.viewer.doubt import Doubt, doubt_of
from raystp.storage import StoragePath
from raystp.units import Level0Pixels

BUTTONS = 8
"""Genes that have a button of their own."""


def spots_maps(
    config: EvaluateConfig, spots: Artifact, first: Prediction, *, compared: ComparedSections, sets: GeneSets
) -> MapContent:
    """Return the maps of one model: every section that was scored, and every predicted slide without measurement."""
    store, outcomes, named = StoragePath.of(config.run.store), compared.outcomes[first.name], _named(sets)
    slides = []
    for name, counts in compared.measured.items():
        rng = np.random.default_rng(config.seed)
        scores = gene_scores(outcomes[name], list(named.values()), rng=rng, draws=config.draws)
        slide = measured_slide(first, store, counts, outcomes[name], scores=scores)
        warnings = "".join(f" Note: {warning}." for warning in compared.warnings.get(name, []))
        slides.append(replace(slide, note=slide.note + warnings))
    measured_on = {one["slide"] for one in sections_of(spots).values()}
    slides += [predicted_slide(first, store, slide) for slide in first.slides if slide not in measured_on]
    return MapContent(
        model=first.name,
        slides=slides,
        genes=first.genes,
        first=_first(config.genes, first.genes, list(outcomes.values())),
        importance=np.asarray(first.meta["training_variance"]),
        sets=named,
        unit=first.measured_as.labels.unit,
    )


def measured_slide(
    first: Prediction, store: StoragePath, counts: SectionCounts, outcome: SectionOutcome, *, scores: GeneIntervals
) -> MapSlide:
    """Return a section's spots that have a tile: measured, predicted, and the prediction's doubt."""
    table = _predictions(first, counts.slide)
    rows = np.flatnonzero(pc.is_in(table["spot"], value_set=tables.strings(counts.spots)).to_numpy())
    table, doubt = table.take(rows), doubt_of(first.prediction, store, counts.slide).select(rows)
    layers = {MEASURED: outcome.measured, PREDICTED: tables.matrix(table["expression"])}
    return MapSlide(
        name=counts.section,
        note=f"Slide {counts.slide}, patient {counts.patient}, {len(rows)} spots.",
        thumbnail=slide_thumbnail(first.embeddings(str(store)), counts.slide),
        shape="circle",
        xy=outcome.xy,
        size=Level0Pixels(counts.diameter_px),
        spots=table["spot"].to_pylist(),
        layers=_with_spread(layers, doubt),
        distance=doubt.distance,
        far_beyond=doubt.far_beyond,
        scores=scores,
    )


def predicted_slide(first: Prediction, store: StoragePath, slide: str) -> MapSlide:
    """Return all tiles of a slide without measurement."""
    table, doubt = _predictions(first, slide), doubt_of(first.prediction, store, slide)
    boxes = tile_boxes(table)
    return MapSlide(
        name=slide,
        note=f"{len(boxes)} tiles of a slide without measurement.",
        thumbnail=slide_thumbnail(first.embeddings(str(store)), slide),
        shape="square",
        xy=boxes[:, :2] + boxes[:, 2:] / 2,
        size=Level0Pixels(float(np.median(boxes[:, 2]))),
        layers=_with_spread({PREDICTED: tables.matrix(table["expression"])}, doubt),
        distance=doubt.distance,
        far_beyond=doubt.far_beyond,
    )


def _predictions(first: Prediction, slide: str) -> pa.Table:
    return first.prediction.table(f"predictions/{slide}.parquet", tables.predictions(len(first.genes)))


def _with_spread(layers: dict[str, np.ndarray], doubt: Doubt) -> dict[str, np.ndarray]:
    return layers if doubt.spread is None else layers | {SPREAD: doubt.spread}


def _named(sets: GeneSets) -> dict[str, Int64[np.ndarray, "_"]]:
    """Return the gene sets that have a map: all but the whole panel."""
    return {name: genes for name, genes in sets.items() if name != "all"}


def _first(listed: Sequence[str], genes: Sequence[str], outcomes: Sequence[SectionOutcome]) -> list[int]:
    """Return the genes with a button: those of the config, then the highest and the median PCC over the sections."""
    each = np.stack([pcc_where_measured(one.predicted, one.measured)[0] for one in outcomes])
    shown = genes_to_show(column_means(each), genes, listed)
    return [column for column, _ in sorted(shown, key=lambda one: one[1] != "listed in the config")][:BUTTONS]
