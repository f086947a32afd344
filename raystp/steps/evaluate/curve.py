"""The learning curve of an evaluation: other evaluations of the same methods, trained on fewer sections."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow.compute as pc

from raystp.artifacts import Artifact, open_artifact
from raystp.errors import ConfigError, some
from raystp.evaluate.comparison.learning_curve import LearningCurvePoint, TrainedScore, learning_curve
from raystp.evaluate.metrics.gene_scores import GeneScores
from raystp.evaluate.metrics.score import MEAN
from raystp.evaluate.tables import SECTION_GENES
from raystp.steps.evaluate.predictions import Prediction, open_models
from raystp.storage import StoragePath


def curve_of(
    models: Sequence[Prediction], scores: Sequence[GeneScores], evaluations: Sequence[Artifact], store: str
) -> list[LearningCurvePoint]:
    """Return the points of all models: those of the evaluations, and the models themselves.

    Raises ConfigError for an evaluation of other methods, of other labels or of other test sections.
    """
    if not evaluations:
        return []
    tested = {one.section for one in scores if one.section != MEAN}
    trained = [
        _trained(one, one.name, np.asarray(score.pcc), np.asarray(score.mse))
        for one in models
        for score in scores
        if (score.model, score.section) == (one.name, MEAN)
    ]
    for evaluation in evaluations:
        trained += _of_evaluation(models, evaluation, tested, store)
    return learning_curve(trained)


def _of_evaluation(
    models: Sequence[Prediction], evaluation: Artifact, tested: set[str], store: str
) -> Iterator[TrainedScore]:
    """Yield the scores of an evaluation's models under the names of the models here, in the same order."""
    if not (evaluation.path / "genes.parquet").exists():
        msg = f"curve: {evaluation.path} has no genes.parquet: run `raystp evaluate` again with this version"
        raise ConfigError(msg)
    table = evaluation.table("genes.parquet", SECTION_GENES)
    found = set(table["section"].unique().to_pylist()) - {MEAN}
    if found != tested:
        msg = (
            f"curve: {evaluation.path} tests the sections {some(sorted(found))}, this evaluation tests "
            f"{some(sorted(tested))}; give evaluations of the same sections"
        )
        raise ConfigError(msg)
    others = open_models([*_predictions(evaluation, store)], store)
    methods, own = ([str(one.model.manifest.config["model"]) for one in each] for each in (others, models))
    if methods != own:
        msg = (
            f"curve: {evaluation.path} is of the methods {some(methods)}, this evaluation of {some(own)}; give "
            "evaluations of the same methods in the same order"
        )
        raise ConfigError(msg)
    labels = [one.measured_as.labels for one in (others[0], models[0])]
    if labels[0] != labels[1]:
        msg = (
            f"curve: {evaluation.path} is of labels in {labels[0].unit}, this evaluation of {labels[1].unit}; give "
            "evaluations of models with the same `labels`"
        )
        raise ConfigError(msg)
    for one, other in zip(models, others, strict=True):
        rows = table.filter(pc.and_(pc.equal(table["model"], other.name), pc.equal(table["section"], MEAN)))
        row_of: Mapping[str, int] = {gene: place for place, gene in enumerate(rows["gene"].to_pylist())}
        order = [row_of[gene] for gene in other.genes]
        columns = (np.asarray(rows[name].to_pylist(), np.float64)[order] for name in ("pcc", "mse"))
        yield _trained(other, one.name, *columns)


def _predictions(evaluation: Artifact, store: str) -> Iterator[Artifact]:
    inputs, number = evaluation.manifest.inputs, 0
    while f"prediction {number}" in inputs:
        yield open_artifact(StoragePath.of(store) / inputs[f"prediction {number}"], "impute")
        number += 1


def _trained(one: Prediction, name: str, pcc: np.ndarray, mse: np.ndarray) -> TrainedScore:
    sections = tuple(one.meta["train"])
    patients = {str(one.meta["patients"][section]) for section in sections}
    return TrainedScore(name, sections, len(patients), one.genes, pcc, mse)
