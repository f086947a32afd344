"""Report of an evaluation against labels of whole cases: genes over the cases, and maps of a few slides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raystp.evaluate.metrics.cases import CASES, CaseOutcome, case_genes_to_show
from raystp.evaluate.metrics.gene_scores import GeneScores
from raystp.evaluate.metrics.genes import GeneSets
from raystp.evaluate.metrics.intervals import FEWEST_UNITS
from raystp.evaluate.metrics.score import ScoreRow
from raystp.evaluate.report.document import Report
from raystp.evaluate.report.sections import case_gene_charts
from raystp.evaluate.report.viewer.part import viewer
from raystp.steps.evaluate.cases.config import CasesEvaluateConfig
from raystp.steps.evaluate.cases.controls import GENE_MEAN, RIDGE
from raystp.steps.evaluate.cases.outcomes import HeldOutCases
from raystp.steps.evaluate.comparison import ModelComparison
from raystp.steps.evaluate.predictions import Prediction
from raystp.steps.evaluate.report import (
    failures_of,
    manifests_of,
    score_charts,
    source_artifacts,
    training_curves,
    work_done,
)
from raystp.steps.evaluate.viewer.content import cases_maps

SLIDES_DRAWN = 3
"""Slides whose maps are drawn; the maps of the others are in the prediction."""


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
    sets: GeneSets


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
        protocol=first.protocol(),
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
        viewer=viewer(cases_maps(config, first, _slides(held), shown=[gene for gene, _ in genes], sets=results.sets)),
        curves=training_curves(models),
        work=work_done(models, sources),
        failures=failures_of(sources),
        manifests=manifests_of(sources),
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _slides(held: HeldOutCases) -> dict[str, str]:
    """Return the slides that are drawn, each with a note."""
    chosen = [(case, slide) for case in held.cases for slide in case.slides][:SLIDES_DRAWN]
    return {
        slide: f"Case {case.name}, patient {case.patient}; only the case's label was measured."
        for case, slide in chosen
    }
