"""Report of an evaluation against measured spots: scores, and maps of every gene."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from raystp.artifacts import Artifact
from raystp.evaluate.metrics.genes import GeneSets
from raystp.evaluate.metrics.intervals import interval_kind
from raystp.evaluate.metrics.score import ScoreRow
from raystp.evaluate.report.document import Report
from raystp.evaluate.report.gene_charts import gene_pair_charts
from raystp.evaluate.report.viewer.part import viewer
from raystp.expression.sections import sections_of
from raystp.models.methods import REFERENCE
from raystp.steps.evaluate.predictions import Prediction
from raystp.steps.evaluate.report import (
    failures_of,
    manifests_of,
    score_charts,
    source_artifacts,
    training_curves,
    work_done,
)
from raystp.steps.evaluate.spots.config import SpotsEvaluateConfig
from raystp.steps.evaluate.spots.controls import LOG_TOTAL
from raystp.steps.evaluate.spots.findings import SpotFindings
from raystp.steps.evaluate.spots.outcomes import ComparedSections
from raystp.steps.evaluate.viewer.content import spots_maps

SECTIONS_NAMED = 4
"""Sections in the title."""


@dataclass(frozen=True)
class SpotResults:
    """The results of an evaluation against measured spots."""

    compared: ComparedSections
    rows: Sequence[ScoreRow]
    notes: Sequence[str]
    findings: SpotFindings
    sets: GeneSets


def spots_report(
    config: SpotsEvaluateConfig, spots: Artifact, models: list[Prediction], results: SpotResults
) -> Report:
    """Return the report's content; it is about the first model."""
    first = models[0]
    sources = source_artifacts(first, config.run.store) | {"spots": spots}
    measured = results.compared.measured
    names, lost = [one.name for one in models], results.compared.failures
    return Report(
        title=f"{first.name}: {_title(list(measured))}",
        protocol=first.protocol(max(len(counts.genes) for counts in measured.values())),
        model=first.name,
        against=compared_with(names, {row.model for row in results.rows}),
        trained=_described(spots, first.meta["train"]),
        tested=_described(spots, list(measured)),
        interval=interval_kind([counts.patient for counts in measured.values()]),
        rows=results.rows,
        permutations=config.permutations,
        differences=results.findings.comparison.differences,
        comparison=results.findings.comparison.parts,
        calibration=results.findings.reliability.parts,
        genes=first.genes,
        gene_scores=results.findings.genes,
        footnotes=results.notes,
        charts=score_charts(results.rows, first.name),
        gene_parts=gene_pair_charts(first.genes, results.compared.outcomes[first.name], first.name),
        viewer=viewer(spots_maps(config, spots, first, compared=results.compared, sets=results.sets)),
        curves=[*training_curves(models), *results.findings.curve_parts],
        work=work_done(models, sources),
        failures=failures_of(sources) + [{key: str(value) for key, value in row.items()} for row in lost],
        manifests=manifests_of(sources),
    )


def compared_with(models: Sequence[str], scored: Collection[str]) -> str:
    """Return what the first model is compared with: the reference method, else the last of the other models.

    A model that was evaluated alone is compared with the control that uses no image, where that was scored.
    """
    others = list(models[1:])
    if not others:
        return LOG_TOTAL if LOG_TOTAL in scored else models[0]
    return REFERENCE if REFERENCE in others else others[-1]


def _title(sections: Sequence[str]) -> str:
    shown = ", ".join(sections[:SECTIONS_NAMED])
    return shown if len(sections) <= SECTIONS_NAMED else f"{shown} and {len(sections) - SECTIONS_NAMED} more"


def _described(spots: Artifact, sections: Sequence[str]) -> list[str]:
    known = sections_of(spots)
    return [
        f"{name} ({_patient(name, str(known[name]['patient']))}{known[name]['spots']} spots)"
        if name in known
        else f"{name} (label of a case)"
        for name in sections
    ]


def _patient(section: str, patient: str) -> str:
    return "" if patient == section else f"patient {patient}, "
