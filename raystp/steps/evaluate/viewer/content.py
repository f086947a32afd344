"""The maps of an evaluation against measured spots: measured sections first, then slides without measurement."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int64

from raystp.artifacts import Artifact
from raystp.evaluate.metrics.genes import GeneSets, genes_to_show, pcc_where_measured
from raystp.evaluate.metrics.score import SectionOutcome
from raystp.evaluate.report.viewer.content import MapContent, NearestTiles, ReferenceTile
from raystp.evaluate.report.viewer.scores import gene_scores
from raystp.expression.sections import sections_of
from raystp.missing import column_means
from raystp.steps.evaluate.config import EvaluateConfig
from raystp.steps.evaluate.predictions import Prediction
from raystp.steps.evaluate.spots.outcomes import ComparedSections
from raystp.steps.evaluate.viewer.nearest import Neighbours, Reference
from raystp.steps.evaluate.viewer.pictures import MOST, ReferenceTiles
from raystp.steps.evaluate.viewer.slides import MapReader
from raystp.storage import StoragePath

BUTTONS = 8
"""Genes that have a button of their own."""


def spots_maps(
    config: EvaluateConfig, spots: Artifact, first: Prediction, *, compared: ComparedSections, sets: GeneSets
) -> MapContent:
    """Return the maps of one model: every section that was scored, and every predicted slide without measurement."""
    store, outcomes, named = StoragePath.of(config.run.store), compared.outcomes[first.name], _named(sets)
    reference = Reference.of(first, store)
    reader, read = MapReader(first, store, reference), []
    for name, counts in compared.measured.items():
        rng = np.random.default_rng(config.seed)
        scores = gene_scores(outcomes[name], list(named.values()), rng=rng, draws=config.draws)
        slide, found = reader.measured(counts, outcomes[name], scores)
        warnings = "".join(f" Note: {warning}." for warning in compared.warnings.get(name, []))
        read.append((replace(slide, note=slide.note + warnings), found))
    measured_on = {one["slide"] for one in sections_of(spots).values()}
    read += [reader.predicted(slide) for slide in first.slides if slide not in measured_on]
    content = MapContent(
        model=first.name,
        slides=[slide for slide, _ in read],
        genes=first.genes,
        first=_first(config.genes, first.genes, list(outcomes.values())),
        importance=np.asarray(first.meta["training_variance"]),
        sets=named,
        unit=first.measured_as.labels.unit,
    )
    return content if reference is None else with_references(content, [found for _, found in read], reference, store)


def with_references(
    content: MapContent, found: Sequence[Neighbours | None], reference: Reference, store: StoragePath
) -> MapContent:
    """Return the maps with the nearest reference tiles of each spot; tiles that are near to many come first."""
    known = [one.rows for one in found if one is not None]
    if not known:
        return content
    rows, used = np.unique(np.concatenate([one.ravel() for one in known]), return_counts=True)
    rows = rows[np.argsort(-used, kind="stable")]
    number = {row: place for place, row in enumerate(rows.tolist())}
    names = reference.opened.rows.take(rows)
    sections, patients, spots = (names[column].to_pylist() for column in ("section", "patient", "spot"))
    tiles = ReferenceTiles.of(reference.index, store)
    pictures = tiles.pictures(sections, spots) if tiles is not None else [None] * len(rows)
    slides = [
        slide if one is None else replace(slide, nearest=NearestTiles(_numbers(one.rows, number), one.distance))
        for slide, one in zip(content.slides, found, strict=True)
    ]
    references = [ReferenceTile(*one) for one in zip(sections, patients, spots, pictures, strict=True)]
    expression = reference.expression(rows[:MOST])
    return replace(content, slides=slides, references=references, reference_expression=expression)


def _numbers(rows: Int64[np.ndarray, "spot k"], number: Mapping[int, int]) -> Int64[np.ndarray, "spot k"]:
    return np.array([number[row] for row in rows.ravel().tolist()], np.int64).reshape(rows.shape)


def _named(sets: GeneSets) -> dict[str, Int64[np.ndarray, "_"]]:
    """Return the gene sets that have a map: all but the whole panel."""
    return {name: genes for name, genes in sets.items() if name != "all"}


def _first(listed: Sequence[str], genes: Sequence[str], outcomes: Sequence[SectionOutcome]) -> list[int]:
    """Return the genes with a button: those of the config, then the highest and the median PCC over the sections."""
    each = np.stack([pcc_where_measured(one.predicted, one.measured)[0] for one in outcomes])
    shown = genes_to_show(column_means(each), genes, listed)
    return [column for column, _ in sorted(shown, key=lambda one: one[1] != "listed in the config")][:BUTTONS]
