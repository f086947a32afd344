"""Controls for scores over cases: the training mean, and ridge and kNN on each case's mean features.

A model that is not better than these gains nothing from the differences between a case's tiles. The ridge is the closed
form of a mean of linear predictions of the tiles (Direct Patch-Level of Gustafsson and Rantalainen, 2410.00945), and
kNN is their fourth model.
"""

import logging

import numpy as np
from jaxtyping import Float32, Int64

from raystp.artifacts import Artifact
from raystp.cluster.progress import Progress
from raystp.cluster.session import session
from raystp.cluster.streams.tasks import map_tasks
from raystp.config import RunConfig
from raystp.evaluate.metrics.cases import CaseOutcome
from raystp.evaluate.metrics.genes import pcc_per_gene
from raystp.models.baselines.knn import fit_knn, predict_knn
from raystp.models.baselines.ridge import fit_ridge, predict_ridge
from raystp.steps.evaluate.cases.outcomes import HeldOutCases
from raystp.steps.evaluate.predictions import Prediction
from raystp.steps.train.cases.cohort import features_of
from raystp.steps.train.cases.retrieval import CANDIDATES, UNVALIDATED_K
from raystp.steps.train.retrieval import Retrieval

logger = logging.getLogger("raystp")

GENE_MEAN, RIDGE, KNN = "gene mean", "ridge on mean features", "kNN on mean features"
NOTES = {
    GENE_MEAN: "predicts the training mean for every case",
    RIDGE: "uses the mean features over all tiles of a case",
    KNN: "is the mean label of the training cases with the nearest mean features; k is chosen among several patients",
}
FOLDS = 5
FEWEST_TRAINING_CASES = 2
"""Ridge holds out at least one case to choose its penalty."""


def control_outcomes(held: HeldOutCases, model: Prediction, *, run: RunConfig) -> dict[str, CaseOutcome]:
    """Return the gene mean and, if the training cases are in the table, ridge and kNN."""
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
    folds = np.unique([case.patient for case in held.train], return_inverse=True)[1] % FOLDS
    own, queries = features[: len(held.train)], features[len(held.train) :]
    controls[RIDGE] = held.outcome(predict_ridge(fit_ridge(own, held.labels, groups=folds), queries))
    k = neighbour_count(own, held.labels, folds)
    if len(np.unique(folds)) == 1:
        logger.warning(f"  {KNN}: all training cases are of one patient, so k={k} was not chosen among them")
    near = fit_knn(own, held.labels, k=k)
    return controls | {KNN: held.outcome(predict_knn(near, queries))}


def neighbour_count(
    features: Float32[np.ndarray, "case feature"],
    labels: Float32[np.ndarray, "case gene"],
    folds: Int64[np.ndarray, "case"],
) -> int:
    """Return the k of `CANDIDATES` with the highest mean PCC over training cases, each fold predicted by the others.

    Of equal ones the first. At most as many as the smallest training side has. One fold alone chooses nothing; its k is
    that of a retrieval without validation cases.
    """
    if len(np.unique(folds)) == 1:
        k = Retrieval(k=UNVALIDATED_K).limited(len(labels)).k
        assert k != "all"  # a number stays one
        return k
    sides = [folds != fold for fold in np.unique(folds)]
    fewest = min(int(side.sum()) for side in sides)
    suited = sorted({min(k, fewest) for k in CANDIDATES})
    if len(suited) == 1:
        return suited[0]
    scores = []
    for k in suited:
        predicted = np.empty_like(labels)
        for side in sides:
            predicted[~side] = predict_knn(fit_knn(features[side], labels[side], k=k), features[~side])
        scores.append(float(pcc_per_gene(predicted, labels)[0].mean()))
    return suited[int(np.argmax(scores))]


def mean_features(work: tuple[Artifact, tuple[str, ...]]) -> Float32[np.ndarray, " feature"]:
    """Return the mean features over all tiles of some slides; runs in one of Ray's processes."""
    embed, slides = work
    return np.asarray(features_of(embed, slides).mean(axis=0, dtype=np.float64), np.float32)
