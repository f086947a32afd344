"""Predictions against labels of whole cases: what evaluate does where no spot was measured.

Beside each model stand the gene mean, and ridge from each case's mean features to its label: a model that does not beat
that has learned nothing from which tile is which.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from raystp import tables
from raystp.artifacts import Artifact, open_artifact
from raystp.cluster.progress import Progress
from raystp.cluster.session import session
from raystp.cluster.streams.tasks import map_tasks
from raystp.config import RunConfig
from raystp.errors import ConfigError, LeakError, SectionError, some
from raystp.evaluate.metrics.cases import CaseOutcome
from raystp.evaluate.protocols import protocol_of
from raystp.expression.bulk.labels import BulkLabels, labels_of
from raystp.expression.bulk.tables import BulkTable, read_table
from raystp.models.attention.predictor import AttentionPredictor
from raystp.models.baselines.ridge import fit_ridge, predict_ridge
from raystp.models.predictor import predictor
from raystp.models.store import load_model
from raystp.steps.evaluate.config import EvaluateConfig
from raystp.steps.evaluate.predictions import Prediction
from raystp.steps.train.bulk_cases import Case, cohort_of, features_of
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

GENE_MEAN, RIDGE = "gene mean", "ridge on mean features"
CONTROLS = {
    GENE_MEAN: "predicts the training mean for every case",
    RIDGE: "reads the mean over all tiles of a case",
}
RIDGE_FOLDS = 5


@dataclass(frozen=True)
class HeldOutCases:
    """The cases that are scored, and the training cases where the table has them."""

    cases: tuple[Case, ...]
    measured: Float32[np.ndarray, "case gene"]
    train: tuple[Case, ...]
    """Empty where a training case has no label or no slide here: then there is no ridge, and no null."""
    labels: Float32[np.ndarray, "_ gene"]
    """Of the training cases."""
    embed: Artifact


def held_cases(config: EvaluateConfig, models: list[Prediction]) -> HeldOutCases:
    """Match predicted slides with the table's cases; raises where no case can be scored, or one was learned from."""
    bulk = config.bulk
    assert bulk is not None  # only then this is called
    place = bulk.place(config.run.store)
    table = read_table(place, bulk.case)
    embed = embeddings_named(models[0], config.run.store)
    cohort = cohort_of(bulk, embed, table.cases)
    predicted = set.intersection(*(set(one.prediction.manifest.notes["slides"]) for one in models))
    cases = [_part(case, predicted) for case in cohort.cases.values() if predicted & set(case.slides)]
    if not cases:
        msg = f"no case of {place} has a slide that every model has predicted ({some(sorted(predicted))})"
        raise SectionError(msg)
    _check(config, models, cases)
    genes, names = tuple(models[0].meta["genes"]), [case.name for case in cases]
    measured = labels_of(table, place, scale=bulk.scale, cases=names).of(names, genes)
    train = _trained_on(models[0], cohort.cases)
    labels = _labels_of_training(table, place, config, train, genes=genes)
    return HeldOutCases(tuple(cases), measured, train, labels, embed)


def embeddings_named(one: Prediction, store: str) -> Artifact:
    """Open the embeddings that a prediction was made of."""
    return open_artifact(StoragePath.of(store) / one.prediction.manifest.inputs["embeddings"], "embed")


def _part(case: Case, predicted: set[str]) -> Case:
    """Return a case with its predicted slides alone."""
    slides = tuple(slide for slide in case.slides if slide in predicted)
    if len(slides) < len(case.slides):
        logger.info(
            f"  of case {case.name}, {len(slides)} of {len(case.slides)} slides were predicted: it is scored on these"
        )
    return Case(case.name, case.patient, slides, case.tiles)


def _check(config: EvaluateConfig, models: list[Prediction], cases: list[Case]) -> None:
    """Raise LeakError for a case of a patient that a model has learned from, ConfigError for labels in another unit."""
    assert config.bulk is not None  # as the caller knows
    protocol = protocol_of(models[0].prediction.manifest.notes["protocol"])
    for one in models:
        seen = set(one.meta["patients"].values())
        known = [case.name for case in cases if case.patient in seen]
        if known and protocol.same_patient == "refuse":
            msg = f"{one.name} has learned from the patients of the cases {some(known)}: they cannot be scored"
            raise LeakError(msg)
        scale = one.meta.get("bulk", {}).get("scale", config.bulk.scale)
        if scale != config.bulk.scale:
            msg = f"bulk.scale: {one.name} has learned from a table read as {scale!r}, this one is read as "
            raise ConfigError(msg + f"{config.bulk.scale!r}: one of them is not what the table holds")


def _trained_on(one: Prediction, cases: Mapping[str, Case]) -> tuple[Case, ...]:
    """Return the training cases of a model that learned from cases; none where one of them is not here."""
    names = one.meta["train"] if "bulk" in one.meta else []
    return tuple(cases[name] for name in names) if all(name in cases for name in names) else ()


def _labels_of_training(
    table: BulkTable, place: StoragePath, config: EvaluateConfig, train: tuple[Case, ...], *, genes: tuple[str, ...]
) -> Float32[np.ndarray, "_ gene"]:
    assert config.bulk is not None  # as the caller knows
    if not train:
        return np.zeros((0, len(genes)), np.float32)
    names = [case.name for case in train]
    labels: BulkLabels = labels_of(table, place, scale=config.bulk.scale, cases=names)
    return labels.of(names, genes)


def outcomes_of(held: HeldOutCases, models: list[Prediction], store: str) -> dict[str, CaseOutcome]:
    """Return what each model predicts of each case, beside its label.

    Attention regression reads a case as one bag of all its slides' tiles; of any other model it is the mean over the
    tiles.
    """
    found = {}
    for one in models:
        kind, arrays, meta = load_model(one.model.path)
        ready = predictor(kind, arrays, meta)
        if isinstance(ready, AttentionPredictor):
            embed = embeddings_named(one, store)
            rows = [ready.predict_bag(features_of(embed, case.slides)) for case in held.cases]
        else:
            rows = [_mean_of_tiles(one, case.slides) for case in held.cases]
        found[one.name] = _outcome(held, np.stack(rows))
    return found


def _mean_of_tiles(one: Prediction, slides: Sequence[str]) -> Float32[np.ndarray, " gene"]:
    schema = tables.predictions(len(one.meta["genes"]))
    parts = [one.prediction.table(f"predictions/{slide}.parquet", schema) for slide in slides]
    tiles = np.concatenate([tables.matrix(part["expression"]) for part in parts])
    return np.asarray(tiles.mean(axis=0, dtype=np.float64), np.float32)


def _outcome(held: HeldOutCases, predicted: Float32[np.ndarray, "case gene"]) -> CaseOutcome:
    names, patients = [case.name for case in held.cases], [case.patient for case in held.cases]
    return CaseOutcome(names, patients, predicted, held.measured)


def controls_of(held: HeldOutCases, model: Prediction, *, run: RunConfig) -> dict[str, CaseOutcome]:
    """Return the gene mean, and ridge where the training cases are here."""
    mean = np.asarray(model.meta["training_mean"], np.float32)
    found = {GENE_MEAN: _outcome(held, np.repeat(mean[None], len(held.cases), axis=0))}
    if len(held.train) < 2:  # noqa: PLR2004 -- ridge holds one out
        return found
    work = [(held.embed, case.slides) for case in (*held.train, *held.cases)]
    rows: list[Float32[np.ndarray, " feature"]] = [np.zeros(0, np.float32)] * len(work)
    with session(run.address), Progress("ridge", len(work), "case") as progress:
        for position, answer in map_tasks(_mean_features, work):
            rows[position] = answer
            progress.add(1)
    features = np.stack(rows)
    whose = np.unique([case.patient for case in held.train], return_inverse=True)[1] % RIDGE_FOLDS
    ridge = fit_ridge(features[: len(held.train)], held.labels, groups=whose)
    return found | {RIDGE: _outcome(held, predict_ridge(ridge, features[len(held.train) :]))}


def _mean_features(work: tuple[Artifact, tuple[str, ...]]) -> Float32[np.ndarray, " feature"]:
    embed, slides = work
    return np.asarray(features_of(embed, slides).mean(axis=0, dtype=np.float64), np.float32)
