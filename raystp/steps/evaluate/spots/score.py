"""Score predictions against measured spots: outcomes, controls, permutation null, maps, report."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from raystp.artifacts import Artifact
from raystp.evaluate.comparison.entries import Outcomes
from raystp.evaluate.comparison.seeds import seed_rows
from raystp.evaluate.metrics.gene_scores import section_gene_scores
from raystp.evaluate.metrics.score import ModelScores, ScoreRow, score_rows, section_scores
from raystp.evaluate.report.score_tables import spots_text
from raystp.expression.sections import ModelLabels, SectionCounts
from raystp.steps.evaluate.comparison import compare_spots
from raystp.steps.evaluate.curve import curve_of
from raystp.steps.evaluate.maps import PlantedSections, score_maps
from raystp.steps.evaluate.predictions import Prediction, gene_sets_of
from raystp.steps.evaluate.reliability import score_reliability
from raystp.steps.evaluate.report import Evaluation
from raystp.steps.evaluate.spots.config import SpotsEvaluateConfig
from raystp.steps.evaluate.spots.controls import (
    NOTES,
    control_outcomes,
    on_predicted_spots,
    planted_expression,
    seen_gene_controls,
)
from raystp.steps.evaluate.spots.findings import SpotFindings
from raystp.steps.evaluate.spots.null import spot_nulls
from raystp.steps.evaluate.spots.outcomes import compare_sections
from raystp.steps.evaluate.spots.report import SpotResults, spots_report
from raystp.steps.train.choice.record import chosen_sentence
from raystp.steps.train.spots.completed import completed_sentence

logger = logging.getLogger("raystp")


def evaluate_spots(
    config: SpotsEvaluateConfig, spots: Artifact, models: list[Prediction], curve: Sequence[Artifact] = ()
) -> Evaluation:
    """Return scores, notes and report; raises SectionError if no predicted section can be scored.

    `curve` are evaluations of the same methods, trained on fewer sections.
    """
    first, compared = models[0], compare_sections(spots, models)
    measured, outcomes = compared.measured, compared.outcomes
    for section, warnings in compared.warnings.items():
        for warning in warnings:
            logger.warning(f"  {section}: {warning}")
    sets = gene_sets_of(models, config.planted, config.sets)
    nulls = spot_nulls(models, spots, tuple(measured), config.permutations, run=config.run)
    controls = control_outcomes(spots, first, measured, planted=config.planted)
    controls = on_predicted_spots(controls, outcomes[first.name])
    controls |= seen_gene_controls(models, outcomes)
    rows: list[ScoreRow] = []
    scored: dict[str, tuple[Outcomes, ModelScores]] = {}
    for name, sections in {**outcomes, **controls}.items():
        rng = np.random.default_rng(config.seed)
        scored[name] = sections, section_scores(sections, sets, rng=rng, draws=config.draws)
        rows += score_rows(first.label(name), scored[name][1], sets, nulls.get(name))
    genes, comparison = section_gene_scores(outcomes), compare_spots(config, models, scored, sets, rows=rows)
    rows += seed_rows(comparison.seeds)
    points = curve_of(models, genes, curve, config.run.store)
    reliability = score_reliability(models, outcomes, measured)
    findings = SpotFindings(comparison, genes, first.genes, reliability, points)
    slides = [counts.slide for counts in measured.values()]
    maps = score_maps(config, models, slides, _planted(config.planted, measured, first.measured_as))
    rows += maps.rows
    notes = [f"`{name}` {note}." for name, note in NOTES.items() if name in controls] + maps.lines
    if not first.measured_as.labels.is_default:
        notes.append(f"Labels, predicted and measured: {first.measured_as.labels.sentence}.")
    notes += findings.lines + _of_training(models)
    notes += [f"{section}: {warning}." for section, warnings in compared.warnings.items() for warning in warnings]
    report = spots_report(config, spots, models, SpotResults(compared, rows, notes, findings, sets))
    return Evaluation(
        rows,
        "\n\n".join(one for one in (spots_text(rows), comparison.text) if one),
        notes,
        report,
        cohort=spots.manifest.name,
        files=findings.files,
        tables=findings.tables,
        failures=compared.failures,
        warnings=compared.warnings,
    )


def _of_training(models: Sequence[Prediction]) -> list[str]:
    """Return what the trainings learned from and chose, a sentence each."""
    notes = [f"`{one.name}`: {completed_sentence(one.meta['completed'])}." for one in models if "completed" in one.meta]
    return notes + [f"`{one.name}`: {chosen_sentence(one.meta['cv'])}." for one in models if "cv" in one.meta]


def _planted(folder: str | None, measured: Mapping[str, SectionCounts], labels: ModelLabels) -> PlantedSections:
    """Return the simulated expression of each measured slide; nothing for a real cohort."""
    if folder is None:
        return {}
    return {counts.slide: (counts.spots, planted_expression(folder, counts, labels)) for counts in measured.values()}
