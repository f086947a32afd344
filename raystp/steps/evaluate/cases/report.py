"""Report of an evaluation against labels of whole cases: genes over the cases, and maps of a few slides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raystp.evaluate.metrics.cases import CASES, CaseOutcome, case_genes_to_show
from raystp.evaluate.metrics.gene_scores import GeneScores
from raystp.evaluate.metrics.intervals import FEWEST_UNITS
from raystp.evaluate.metrics.score import ScoreRow
from raystp.evaluate.protocols import protocol_of
from raystp.evaluate.report.document import Report
from raystp.evaluate.report.parts import ReportSection
from raystp.evaluate.report.sections import attention_figures, case_gene_charts
from raystp.expression.sections import embeddings_of
from raystp.steps.evaluate.cases.config import CasesEvaluateConfig
from raystp.steps.evaluate.cases.controls import GENE_MEAN, RIDGE
from raystp.steps.evaluate.cases.outcomes import HeldOutCases
from raystp.steps.evaluate.comparison import ModelComparison
from raystp.steps.evaluate.maps import map_models
from raystp.steps.evaluate.predictions import Prediction
from raystp.steps.evaluate.report import (
    failures_of,
    manifests_of,
    predicted_slide,
    score_charts,
    slide_thumbnail,
    source_artifacts,
    tile_boxes,
    training_curves,
    work_done,
)

SLIDES_DRAWN = 3
"""Slides whose maps are drawn; the maps of the others are in the prediction."""

GENES_DRAWN = 2
"""Genes that are drawn on a slide."""


@dataclass(frozen=True)
class CaseResults:
    """The results of an evaluation against labels of cases."""

    held: HeldOutCases
    outcomes: Mapping[str, CaseOutcome]
    """Model -> predicted expression beside the labels."""
    rows: Sequence[ScoreRow]
    notes: Sequence[str]
    comparison: ModelComparison
    genes: Sequence[GeneScores]


def cases_report(config: CasesEvaluateConfig, models: list[Prediction], results: CaseResults) -> Report:
    """Return the report's content; it is about the first model."""
    first, held = models[0], results.held
    sources = source_artifacts(first, config.run.store)
    outcome = results.outcomes[first.name]
    patients = set(outcome.patients)
    genes = case_genes_to_show(outcome, first.genes, config.genes)
    charts = score_charts(results.rows, first.name, CASES) if outcome.has_correlation else []
    return Report(
        title=f"{first.name}: {_counted(len(held.cases), 'case')}",
        protocol=protocol_of(first.label().protocol),
        model=first.name,
        against=RIDGE if RIDGE in {row.model for row in results.rows} else GENE_MEAN,
        trained=[_counted(len(first.meta["train"]), "case" if first.learned_from_cases else "section")],
        tested=[f"{_counted(len(held.cases), 'case')} of {_counted(len(patients), 'patient')}"],
        interval="over patients" if len(patients) >= FEWEST_UNITS else "over cases",
        over=CASES,
        rows=results.rows,
        permutations=config.permutations,
        differences=results.comparison.differences,
        comparison=results.comparison.parts,
        genes=first.genes,
        gene_scores=results.genes,
        footnotes=results.notes,
        charts=charts,
        gene_parts=case_gene_charts(outcome, first.genes, genes),
        sections=_slides(config, first, held, [first.genes[gene] for gene, _ in genes][:GENES_DRAWN]),
        curves=training_curves(models),
        work=work_done(models, sources),
        failures=failures_of(sources),
        manifests=manifests_of(sources),
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _slides(
    config: CasesEvaluateConfig, first: Prediction, held: HeldOutCases, genes: list[str]
) -> list[ReportSection]:
    """Draw a few slides: attention maps if the model has them, else the prediction of each tile."""
    model = next(iter(map_models([first], config.run.store)), None)
    chosen = [(case, slide) for case in held.cases for slide in case.slides][:SLIDES_DRAWN]
    sections = []
    for case, slide in chosen:
        if model is not None:
            boxes = tile_boxes(embeddings_of(model.embed, slide))
            maps = model.predictor.maps(model.features(slide), genes)
            figures = attention_figures(slide, slide_thumbnail(model.embed, slide), boxes, maps=maps, genes=genes)
        else:
            figures, _ = predicted_slide(first, held.embed, slide, genes)
        note = f"Case {case.name}, patient {case.patient}; only the case's label was measured."
        sections.append(ReportSection(f"Slide {slide}", figures, note))
    return sections
