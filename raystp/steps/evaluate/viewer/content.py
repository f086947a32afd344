"""The maps of an evaluation: measured sections first, then slides without measurement; or slides of cases."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int64

from raystp.artifacts import Artifact
from raystp.evaluate.metrics.genes import GeneSets, genes_to_show, pcc_where_measured
from raystp.evaluate.metrics.score import SectionOutcome
from raystp.evaluate.report.viewer.content import MapContent, MapSlide, NearestTiles, ReferenceTile
from raystp.evaluate.report.viewer.scores import gene_scores
from raystp.expression.sections import sections_of
from raystp.missing import column_means
from raystp.steps.evaluate.config import EvaluateConfig
from raystp.steps.evaluate.predictions import Prediction
from raystp.steps.evaluate.spots.outcomes import ComparedSections
from raystp.steps.evaluate.viewer.nearest import Neighbours, Reference
from raystp.steps.evaluate.viewer.pictures import MOST, ReferenceTiles
from raystp.steps.evaluate.viewer.sets import gmt_sets
from raystp.steps.evaluate.viewer.slides import MapReader
from raystp.storage import StoragePath

LABEL_UNIT = "units of the labels"
BUTTONS = 8
"""Genes that have a button of their own."""


def spots_maps(
    config: EvaluateConfig, spots: Artifact, first: Prediction, *, compared: ComparedSections, sets: GeneSets
) -> MapContent:
    """Return the maps of one model: every section that was scored, and every predicted slide without measurement."""
    reader, outcomes = MapReader.of(first, config.run.store), compared.outcomes[first.name]
    named = _named(config, sets, first.genes)
    read = []
    for name, counts in compared.measured.items():
        rng = np.random.default_rng(config.seed)
        scores = gene_scores(outcomes[name], list(named.values()), rng=rng, draws=config.draws)
        slide, found = reader.measured(counts, outcomes[name], scores)
        warnings = "".join(f" Note: {warning}." for warning in compared.warnings.get(name, []))
        read.append((replace(slide, note=slide.note + warnings), found))
    measured_on = {one["slide"] for one in sections_of(spots).values()}
    read += [reader.predicted(slide) for slide in first.slides if slide not in measured_on]
    return _content(reader, read, _first(config.genes, first.genes, list(outcomes.values())), named)


def cases_maps(
    config: EvaluateConfig, first: Prediction, notes: Mapping[str, str], *, shown: Sequence[int], sets: GeneSets
) -> MapContent:
    """Return the maps of some slides of cases; `notes` is slide -> a note, `shown` the genes that have a button."""
    reader, read = MapReader.of(first, config.run.store), []
    for name, note in notes.items():
        slide, found = reader.predicted(name)
        read.append((replace(slide, note=f"{slide.note} {note}"), found))
    return _content(reader, read, shown, _named(config, sets, first.genes))


def _content(
    reader: MapReader, read: Sequence[tuple[MapSlide, Neighbours | None]], shown: Sequence[int], sets: GeneSets
) -> MapContent:
    first = reader.first
    content = MapContent(
        model=first.name,
        slides=[slide for slide, _ in read],
        genes=first.genes,
        first=list(shown)[:BUTTONS],
        importance=np.asarray(first.meta["training_variance"]),
        sets=sets,
        unit=LABEL_UNIT if first.learned_from_cases else first.measured_as.labels.unit,
    )
    found = [neighbours for _, neighbours in read]
    return content if reader.reference is None else with_references(content, found, reader.reference, reader.store)


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


def _named(config: EvaluateConfig, sets: GeneSets, panel: Sequence[str]) -> dict[str, Int64[np.ndarray, "_"]]:
    """Return the gene sets that have a map: all that are scored but the whole panel, then those of GMTs."""
    return {name: genes for name, genes in sets.items() if name != "all"} | gmt_sets(config.sets, panel, sets)


def _first(listed: Sequence[str], genes: Sequence[str], outcomes: Sequence[SectionOutcome]) -> list[int]:
    """Return the genes with a button: those of the config, then the highest and the median PCC over the sections."""
    each = np.stack([pcc_where_measured(one.predicted, one.measured)[0] for one in outcomes])
    shown = genes_to_show(column_means(each), genes, listed)
    return [column for column, _ in sorted(shown, key=lambda one: one[1] != "listed in the config")]
