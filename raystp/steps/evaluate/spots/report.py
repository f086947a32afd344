"""Report of an evaluation against measured spots: each section measured beside predicted, then other slides."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raystp.artifacts import Artifact
from raystp.evaluate.metrics.gene_scores import GeneScores
from raystp.evaluate.metrics.intervals import interval_kind
from raystp.evaluate.metrics.score import ScoreRow
from raystp.evaluate.protocols import protocol_of
from raystp.evaluate.report.document import Report
from raystp.evaluate.report.gene_charts import gene_pair_charts
from raystp.evaluate.report.parts import ReportSection
from raystp.evaluate.report.sections import section_figures
from raystp.expression.sections import sections_of
from raystp.models.methods import REFERENCE
from raystp.steps.evaluate.comparison import ModelComparison
from raystp.steps.evaluate.predictions import Prediction
from raystp.steps.evaluate.reliability import Reliability
from raystp.steps.evaluate.report import (
    failures_of,
    manifests_of,
    predicted_slide,
    score_charts,
    slide_thumbnail,
    slide_uncertainty,
    source_artifacts,
    training_curves,
    work_done,
)
from raystp.steps.evaluate.spots.config import SpotsEvaluateConfig
from raystp.steps.evaluate.spots.outcomes import ComparedSections
from raystp.units import Level0Pixels

GENES_DRAWN = 3
"""Genes that are drawn on a slide without measurement."""


@dataclass(frozen=True)
class SpotResults:
    """The results of an evaluation against measured spots."""

    compared: ComparedSections
    rows: Sequence[ScoreRow]
    notes: Sequence[str]
    comparison: ModelComparison
    genes: Sequence[GeneScores]
    reliability: Reliability


def spots_report(
    config: SpotsEvaluateConfig, spots: Artifact, models: list[Prediction], results: SpotResults
) -> Report:
    """Return the report's content; it is about the first model."""
    first = models[0]
    sources = source_artifacts(first, config.run.store) | {"spots": spots}
    embed, measured = sources["embeddings"], results.compared.measured
    names, lost = [one.name for one in models], results.compared.failures
    return Report(
        title=f"{first.name}: {', '.join(measured)}",
        protocol=protocol_of(first.label().protocol),
        model=first.name,
        against=REFERENCE if REFERENCE in names else names[-1],
        trained=_described(spots, first.meta["train"]),
        tested=_described(spots, list(measured)),
        interval=interval_kind([counts.patient for counts in measured.values()]),
        rows=results.rows,
        permutations=config.permutations,
        differences=results.comparison.differences,
        comparison=results.comparison.parts,
        calibration=results.reliability.parts,
        genes=first.genes,
        gene_scores=results.genes,
        footnotes=results.notes,
        charts=score_charts(results.rows, first.name),
        gene_parts=gene_pair_charts(first.genes, results.compared.outcomes[first.name], first.name),
        sections=[_measured(config, name, results, first=first, embed=embed) for name in measured]
        + _unmeasured(config, spots, first, embed),
        curves=training_curves(models),
        work=work_done(models, sources),
        failures=failures_of(sources) + [{key: str(value) for key, value in row.items()} for row in lost],
        manifests=manifests_of(sources),
    )


def _described(spots: Artifact, sections: Sequence[str]) -> list[str]:
    known = sections_of(spots)
    return [
        f"{name} (patient {known[name]['patient']}, {known[name]['spots']} spots)"
        if name in known
        else f"{name} (label of a case)"
        for name in sections
    ]


def _measured(
    config: SpotsEvaluateConfig, name: str, results: SpotResults, *, first: Prediction, embed: Artifact
) -> ReportSection:
    outcome, counts = results.compared.outcomes[first.name][name], results.compared.measured[name]
    thumbnail, diameter = slide_thumbnail(embed, counts.slide), Level0Pixels(counts.diameter_px)
    figures = section_figures(name, thumbnail, diameter, outcome, panel=first.genes, listed=config.genes)
    figures += slide_uncertainty(first, counts.slide, thumbnail)
    note = f"Slide {counts.slide}, patient {counts.patient}, {len(outcome.xy)} spots."
    note += "".join(f" Note: {warning}." for warning in results.compared.warnings.get(name, []))
    return ReportSection(f"Section {name}", figures, note)


def _unmeasured(
    config: SpotsEvaluateConfig, spots: Artifact, first: Prediction, embed: Artifact
) -> list[ReportSection]:
    """Draw a few genes on each predicted slide without measured spots."""
    measured = {one["slide"] for one in sections_of(spots).values()}
    genes = [gene for gene in config.genes if gene in first.genes][:GENES_DRAWN]
    genes = genes or [first.genes[int(np.argmax(first.meta["training_variance"]))]]
    sections = []
    for slide in first.slides:
        if slide not in measured:
            figures, tiles = predicted_slide(first, embed, slide, genes)
            sections.append(ReportSection(f"Slide {slide}", figures, f"{tiles} tiles of a slide without measurement."))
    return sections
