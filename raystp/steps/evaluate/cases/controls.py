"""Controls for scores over cases: the training mean, and ridge from each case's mean features to its label.

A model that is not better than this ridge gains nothing from the differences between a case's tiles.
"""

import numpy as np
from jaxtyping import Float32

from raystp.artifacts import Artifact
from raystp.cluster.progress import Progress
from raystp.cluster.session import session
from raystp.cluster.streams.tasks import map_tasks
from raystp.config import RunConfig
from raystp.evaluate.metrics.cases import CaseOutcome
from raystp.models.baselines.ridge import fit_ridge, predict_ridge
from raystp.steps.evaluate.cases.outcomes import HeldOutCases
from raystp.steps.evaluate.predictions import Prediction
from raystp.steps.train.cases.cohort import features_of

GENE_MEAN, RIDGE = "gene mean", "ridge on mean features"
NOTES = {
    GENE_MEAN: "predicts the training mean for every case",
    RIDGE: "uses the mean features over all tiles of a case",
}
RIDGE_FOLDS = 5
FEWEST_TRAINING_CASES = 2
"""Ridge holds out at least one case to choose its penalty."""


def control_outcomes(held: HeldOutCases, model: Prediction, *, run: RunConfig) -> dict[str, CaseOutcome]:
    """Return the gene mean and, if the training cases are in the table, ridge."""
    mean = np.asarray(model.meta["training_mean"], np.float32)
    controls = {GENE_MEAN: held.outcome(np.repeat(mean[None], len(held.cases), axis=0))}
    if len(held.train) < FEWEST_TRAINING_CASES:
        return controls
    work = [(held.embed, case.slides) for case in (*held.train, *held.cases)]
    rows: list[Float32[np.ndarray, " feature"]] = [np.zeros(0, np.float32)] * len(work)
    with session(run.address), Progress("features", len(work), "case") as progress:
        for position, row in map_tasks(mean_features, work):
            rows[position] = row
            progress.add(1)
    features = np.stack(rows)
    folds = np.unique([case.patient for case in held.train], return_inverse=True)[1] % RIDGE_FOLDS
    ridge = fit_ridge(features[: len(held.train)], held.labels, groups=folds)
    return controls | {RIDGE: held.outcome(predict_ridge(ridge, features[len(held.train) :]))}


def mean_features(work: tuple[Artifact, tuple[str, ...]]) -> Float32[np.ndarray, " feature"]:
    """Return the mean features over all tiles of some slides; runs in one of Ray's processes."""
    embed, slides = work
    return np.asarray(features_of(embed, slides).mean(axis=0, dtype=np.float64), np.float32)
