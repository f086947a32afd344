"""Controls for scores over spots: predictions without an image, and the ground truth of a simulated cohort."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Float64

from raystp.artifacts import Artifact
from raystp.evaluate.metrics.score import SectionOutcome
from raystp.expression.label_values import expected_labels
from raystp.expression.sections import ModelLabels, SectionCounts, load_counts
from raystp.missing import pair_where_predicted
from raystp.models.log_total import fit_log_total, predict_log_total
from raystp.models.unseen_genes import mean_gene_profile
from raystp.steps.evaluate.predictions import Prediction
from raystp.steps.evaluate.spots.outcomes import sections_of_training
from raystp.storage import StoragePath

LOG_TOTAL, SECTION_MEAN, PLANTED = "log total counts", "section mean", "planted mean"
SEEN_MEAN = "mean of seen genes"
NOTES = {
    LOG_TOTAL: "uses no image, only the measured sequencing depth of each test spot",
    SECTION_MEAN: "uses no image, only the measured mean of each gene in the test section",
    PLANTED: "is the simulated ground truth; measurement noise makes a higher score impossible",
}

Outcomes = dict[str, dict[str, SectionOutcome]]
"""Model or control -> section -> predicted beside measured expression."""


def control_outcomes(
    spots: Artifact, first: Prediction, measured: Mapping[str, SectionCounts], *, planted: str | None
) -> Outcomes:
    """Return the controls that use no image: sequencing depth, section mean and, for a simulated cohort, its truth.

    `log total counts` is fitted on the training sections; it is left out if none of them is measured.
    """
    labels = first.measured_as
    train = [load_counts(spots, name) for name in sections_of_training(spots, first)]
    line = None
    if train:
        totals, expression = [one.totals for one in train], [labels.values(one) for one in train]
        line = fit_log_total(np.concatenate(totals), np.concatenate(expression))
    controls: Outcomes = {}
    for name, counts in measured.items():
        truth = labels.values(counts)
        mean = np.repeat(truth.mean(axis=0, keepdims=True), len(truth), axis=0)  # of a gene that is missing: missing
        predicted = {LOG_TOTAL: predict_log_total(line, counts.totals)} if line is not None else {}
        predicted[SECTION_MEAN] = mean
        if planted is not None:
            predicted[PLANTED] = planted_expression(planted, counts, labels)
        for control, values in predicted.items():
            pair = pair_where_predicted(values, truth)
            controls.setdefault(control, {})[name] = SectionOutcome(
                *pair, counts.xy, counts.patient, labels.labels.unit
            )
    return controls


def on_predicted_spots(controls: Outcomes, predicted: Mapping[str, SectionOutcome]) -> Outcomes:
    """Return the controls on the spots that a model predicts, so that all rows of a table are of the same spots."""
    return {
        name: {section: _on(one, predicted[section]) for section, one in sections.items()}
        for name, sections in controls.items()
    }


def _on(one: SectionOutcome, predicted: SectionOutcome) -> SectionOutcome:
    """Return the outcome on the other's spots, in their order; spots are matched by their centres."""
    row = {(x, y): number for number, (x, y) in enumerate(one.xy.tolist())}
    rows = [row[x, y] for x, y in predicted.xy.tolist()]
    return replace(one, predicted=one.predicted[rows], measured=one.measured[rows], xy=predicted.xy)


def seen_gene_controls(models: list[Prediction], outcomes: Outcomes) -> Outcomes:
    """Return, for each model with unseen genes, a control without gene texts: its mean over the seen genes."""
    controls: Outcomes = {}
    for one in models:
        if not one.meta.get("unseen"):
            continue
        seen = np.asarray([gene not in one.meta["unseen"] for gene in one.genes])
        controls[f"{one.name}, {SEEN_MEAN}"] = {
            section: replace(outcome, predicted=mean_gene_profile(outcome.predicted[:, seen], len(one.genes)))
            for section, outcome in outcomes[one.name].items()
        }
    return controls


def planted_expression(folder: str, counts: SectionCounts, of: ModelLabels) -> Float32[np.ndarray, "spot gene"]:
    """Return the labels of the simulated expected expression, spots in the order of the counts."""
    table = (StoragePath.of(folder) / f"{counts.section}.parquet").read_table()
    row = {spot: number for number, spot in enumerate(table["spot"].to_pylist())}
    rows = [row[spot] for spot in counts.spots]
    share: Float64[np.ndarray, "spot gene"] = np.stack([table[gene].to_numpy()[rows] for gene in of.genes], axis=1)
    return expected_labels(share, counts.totals, of.labels, counts.array)
