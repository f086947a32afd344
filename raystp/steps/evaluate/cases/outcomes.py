"""Held-out cases with their labels, and the predicted expression of each."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from raystp import tables
from raystp.artifacts import Artifact
from raystp.errors import ConfigError, LeakError, SectionError, some
from raystp.evaluate.metrics.cases import CaseOutcome
from raystp.evaluate.protocols import protocol_of
from raystp.expression.bulk.labels import labels_of
from raystp.expression.bulk.tables import read_table
from raystp.steps.evaluate.cases.config import CasesEvaluateConfig
from raystp.steps.evaluate.maps import map_predictor
from raystp.steps.evaluate.predictions import Prediction
from raystp.steps.impute.bags import BagImputer
from raystp.steps.train.cases.cohort import Case, cohort_of, features_of
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")


@dataclass(frozen=True)
class HeldOutCases:
    """The cases that are scored, and the training cases if the table has them."""

    cases: tuple[Case, ...]
    measured: Float32[np.ndarray, "case gene"]
    train: tuple[Case, ...]
    """Empty if a training case has no label or no slide here: then there is no ridge and no permutation null."""
    labels: Float32[np.ndarray, "_ gene"]
    """Labels of the training cases."""
    embed: Artifact

    def outcome(self, predicted: Float32[np.ndarray, "case gene"]) -> CaseOutcome:
        """Return the predicted expression beside the labels."""
        names, patients = [case.name for case in self.cases], [case.patient for case in self.cases]
        return CaseOutcome(names, patients, predicted, self.measured)


def held_out_cases(config: CasesEvaluateConfig, models: list[Prediction]) -> HeldOutCases:
    """Match predicted slides with the cases of the table.

    Raises SectionError if no case can be scored, LeakError if a model was trained on one of them, ConfigError if a
    model was trained on labels in another unit.
    """
    first, path = models[0], config.cases.path(config.run.store)
    table = read_table(path, config.cases.case)
    embed = first.embeddings(config.run.store)
    cohort = cohort_of(config.cases, embed, table.cases)
    predicted = set.intersection(*(set(one.slides) for one in models))
    cases = [_predicted_part(case, predicted) for case in cohort.cases.values() if predicted & set(case.slides)]
    if not cases:
        msg = f"no case of {path} has a slide that all models predict (predicted: {some(sorted(predicted))})"
        raise SectionError(msg)
    _check_patients(models, cases)
    _check_scale(config, models)
    train = _training_cases(first, cohort.cases)

    def labels(chosen: Sequence[Case]) -> Float32[np.ndarray, "_ gene"]:
        names = [case.name for case in chosen]
        return labels_of(table, path, scale=config.cases.scale, cases=names).of(names, first.genes)

    train_labels = labels(train) if train else np.zeros((0, len(first.genes)), np.float32)
    return HeldOutCases(tuple(cases), labels(cases), train, train_labels, embed)


def case_outcomes(held: HeldOutCases, models: list[Prediction], store: str) -> dict[str, CaseOutcome]:
    """Return each model's prediction of each case beside its label.

    A model that predicts whole bags reads a case as one bag of all its slides' tiles; any other model's prediction of a
    case is the mean over its tiles.
    """
    return {one.name: held.outcome(np.stack([*_predictions(one, held.cases, store)])) for one in models}


def _predictions(one: Prediction, cases: Sequence[Case], store: str) -> Iterator[Float32[np.ndarray, " gene"]]:
    """Yield the prediction of each case."""
    predictor, imputer = map_predictor(one.model), BagImputer.of(one.prediction, StoragePath.of(store))
    embed = one.embeddings(store) if predictor is not None or imputer is not None else None
    left_out: Mapping[str, str] = one.prediction.manifest.notes.get("left_out", {})
    for case in cases:
        if embed is None:
            yield _mean_of_tiles(one, case.slides)
        elif imputer is not None:
            own = case.patient if any(slide in left_out for slide in case.slides) else None
            yield imputer.predict_bag(features_of(embed, case.slides), left_out=own)
        elif predictor is not None:
            yield predictor.predict_bag(features_of(embed, case.slides))


def _predicted_part(case: Case, predicted: set[str]) -> Case:
    """Return a case with its predicted slides only."""
    slides = tuple(slide for slide in case.slides if slide in predicted)
    if len(slides) < len(case.slides):
        logger.info(f"  case {case.name}: scored on {len(slides)} of {len(case.slides)} slides, the predicted ones")
    return Case(case.name, case.patient, slides, case.tiles)


def _check_patients(models: list[Prediction], cases: list[Case]) -> None:
    """Raise LeakError for a case of a patient that a model was trained on."""
    if protocol_of(models[0].label().protocol).same_patient != "refuse":
        return
    for one in models:
        trained = set(one.meta["patients"].values())
        leaked = [case.name for case in cases if case.patient in trained]
        if leaked:
            msg = (
                f"{one.name} was trained on the patients of cases {some(leaked)}, so they cannot be scored; predict "
                "slides of other patients"
            )
            raise LeakError(msg)


def _check_scale(config: CasesEvaluateConfig, models: list[Prediction]) -> None:
    """Raise ConfigError for a model that was trained on labels in another unit."""
    for one in models:
        scale = one.meta.get("bulk", {}).get("scale", config.cases.scale)
        if scale != config.cases.scale:
            msg = (
                f"cases.scale: {one.name} was trained on a table with scale {scale!r}, this one has "
                f"{config.cases.scale!r}; set the scale that describes the table's values"
            )
            raise ConfigError(msg)
        labels = one.measured_as.labels
        if config.cases.scale == "counts" and (labels.totals, labels.log) != ("all", "ln"):
            msg = (
                f"cases.scale: counts are scored as log1p CP10k of each case, and {one.name} was trained on spots with "
                f"labels in {labels.unit}: evaluate it on `targets: spots`, or train it with the default `labels`"
            )
            raise ConfigError(msg)


def _training_cases(one: Prediction, cases: Mapping[str, Case]) -> tuple[Case, ...]:
    """Return the training cases of a model trained on cases; none if one of them is missing here."""
    names = one.meta["train"] if one.learned_from_cases else []
    return tuple(cases[name] for name in names) if all(name in cases for name in names) else ()


def _mean_of_tiles(one: Prediction, slides: Sequence[str]) -> Float32[np.ndarray, " gene"]:
    schema = tables.predictions(len(one.genes))
    parts = [one.prediction.table(f"predictions/{slide}.parquet", schema) for slide in slides]
    tiles = np.concatenate([tables.matrix(part["expression"]) for part in parts])
    return np.asarray(tiles.mean(axis=0, dtype=np.float64), np.float32)
