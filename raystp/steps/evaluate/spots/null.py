"""Permutation null on spots: scores of the same model, trained on measurements permuted among the training spots.

One permutation is one task: train, predict the test sections, correlate. A model that scores no better than this has
learned nothing from the images. A method that predicts through a reference index retrieves from the permuted spots by
the same retrieval as the score that the null stands beside: its metric, vectors, number of neighbours and weights.
"""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64

from raystp.artifacts import Artifact, open_artifact, resolve
from raystp.cluster.progress import Progress
from raystp.cluster.session import session
from raystp.cluster.streams.tasks import map_tasks
from raystp.config import RunConfig
from raystp.errors import ArtifactError, ConfigError
from raystp.evaluate.metrics.genes import pcc_where_measured
from raystp.evaluate.metrics.score import POOLED, Nulls
from raystp.expression.labels import Labels
from raystp.expression.training_set import SpotTable, TrainingSetSpec, join_section, load_training_set, stack_sections
from raystp.impute.calibration import Calibration
from raystp.missing import pair_where_predicted
from raystp.models.ensemble.predictor import columns_of, weighted_mean
from raystp.models.methods import METHODS
from raystp.models.store import load_model
from raystp.models.training.fit import fit
from raystp.models.training.setup import start
from raystp.steps.embedding_source import input_folders, reopen_embeddings
from raystp.steps.evaluate.predictions import Prediction, retrieval_of
from raystp.steps.train.retrieval import Retrieval
from raystp.steps.train.spots.config import SpotsTrainConfig
from raystp.steps.train.spots.gene_text import text_rows
from raystp.steps.train.spots.learner import SpotsLearner
from raystp.storage import StoragePath


@dataclass(frozen=True)
class SpotNullTask:
    """One permutation of one model; it is sent to a worker, so it holds paths."""

    model: StoragePath
    spots: StoragePath
    embed: tuple[StoragePath, ...]
    """The embeddings, in the model's order."""
    test: tuple[str, ...]
    epochs: int
    retrieval: Retrieval
    """The retrieval of the prediction that the null stands beside."""
    seed: int
    completed: StoragePath | None = None
    """The completed labels that the model was trained on; the test spots keep their measured ones."""


def null_pcc(task: SpotNullTask) -> dict[str, Float64[np.ndarray, " gene"]]:
    """Return the PCC of each gene in each test section, and pooled, under one permutation; NaN where not measured."""
    config, train, test = _data(task.model, task.spots, task.embed, task.test, completed=task.completed)
    shuffled = train.shuffled(np.random.default_rng([task.seed, 0xB1EE9]))
    predicted = _refit(config, shuffled, test, task)
    parts = {name: test.group == number for number, name in enumerate(test.sections)}
    predicted, measured = pair_where_predicted(predicted, test.expression)
    found = {name: pcc_where_measured(predicted[rows], measured[rows])[0] for name, rows in parts.items()}
    return found | {POOLED: pcc_where_measured(predicted, measured)[0]}


@functools.lru_cache(maxsize=2)
def _data(
    model: StoragePath,
    spots: StoragePath,
    embed: tuple[StoragePath, ...],
    test: tuple[str, ...],
    *,
    completed: StoragePath | None = None,
) -> tuple[SpotsTrainConfig, SpotTable, SpotTable]:
    """Read the training and the test spots once per process."""
    _, _, meta = load_model(model)
    measured, images = open_artifact(spots, "spots"), reopen_embeddings(meta, embed)
    config = SpotsTrainConfig.of({**open_artifact(model, "train").manifest.config, "run": {}})
    genes, validation = tuple(meta["genes"]), tuple(meta["validation"])
    block, aliases = config.split.validation_block, meta.get("gene_aliases", {})
    labels = open_artifact(completed, "complete") if completed is not None else None
    kind = Labels.of(meta)
    spec = TrainingSetSpec(measured, images, tuple(meta["train"]), validation, block, genes, aliases, labels, kind)
    train, _ = load_training_set(spec)
    return config, train, stack_sections([join_section(measured, images, name) for name in test], genes, aliases, kind)


def _refit(
    config: SpotsTrainConfig, train: SpotTable, test: SpotTable, task: SpotNullTask
) -> Float32[np.ndarray, "spot gene"]:
    """Train the same model on these spots, for as many epochs as the real one; return what it predicts."""
    kind, stored, meta = load_model(task.model)
    artifact = open_artifact(task.model, "train")
    if config.method.combines_models:
        members = enumerate(meta["members"])
        predicted = (_refit_member(artifact, number, one, (train, test), task=task) for number, one in members)
        return weighted_mean(predicted, stored["weights"].tolist())
    learner = SpotsLearner(
        kind=kind,
        spec=TrainingSetSpec(artifact, artifact, (), (), 0.0, tuple(meta["genes"])),  # the spots are given instead
        options=config.options,
        meta=meta,
        seed=config.fit.seed,
        retrieval=task.retrieval,
        texts=text_rows(config.text, meta["genes"])[0] if config.method.needs_gene_text else None,
        bags=config.bags.model_dump(),
    )
    if not config.method.is_trained:
        return learner.predict(config.method.fit(config.options, train, seed=config.fit.seed), train, test)
    options = dataclasses.replace(config.fit, epochs=task.epochs, select="last", patience=None)
    setup = learner.setup(train, None, torch.device("cpu"))
    state = start(setup, options)
    for _ in fit(state, setup.train, options):
        pass
    arrays = {name: value.numpy() for name, value in state.weights().items()} | setup.extra
    return learner.predict(arrays, train, test)


def _refit_member(
    ensemble: Artifact,
    number: int,
    record: Mapping[str, Any],
    tables: tuple[SpotTable, SpotTable],
    *,
    task: SpotNullTask,
) -> Float32[np.ndarray, "spot gene"]:
    """Train a member of an ensemble on those of these spots whose sections it was trained on; return its prediction.

    It reads its own columns of their features. A contrastive member retrieves from these spots as the ensemble does.
    """
    member, columns = _member(ensemble, number), record.get("columns")
    meta = load_model(member.path)[2]
    train, test = tables
    if columns is not None:
        train, test = (dataclasses.replace(one, features=one.features[:, columns_of(columns)]) for one in tables)
    own = train.of_sections(meta["train"])
    config = SpotsTrainConfig.of({**member.manifest.config, "run": {}})
    epochs, how = int(meta.get("epoch", 0)) + 1, Retrieval.of(meta.get("retrieval", {}))
    again = dataclasses.replace(task, model=member.path, epochs=epochs, retrieval=how)
    predicted = _refit(config, own, test, again)
    return predicted if "calibration" not in meta else Calibration.from_json(meta["calibration"]).expression(predicted)


def _member(ensemble: Artifact, number: int) -> Artifact:
    """Open a member of an ensemble; it is in the ensemble's store, or where its config says."""
    reference = ensemble.manifest.config[ensemble.manifest.config["model"]]["members"][number]
    return resolve(ensemble.path.parent.parent.uri, reference, "train")


def spot_nulls(
    models: list[Prediction], spots: Artifact, test: tuple[str, ...], permutations: int, *, run: RunConfig
) -> dict[str, Nulls]:
    """Return each model's null: test section (and pooled) -> PCC of each gene under each permutation."""
    store = StoragePath.of(run.store)
    tasks = [
        (one.name, _task(one, spots, test, seed=seed, store=store))
        for one in models
        if _has_null(one)
        for seed in range(permutations)
    ]
    if not tasks:
        return {}
    for one in filter(_has_null, models):
        _check_config(one)
    scores: list[dict[str, Float64[np.ndarray, " gene"]]] = [{}] * len(tasks)
    with session(run.address), Progress("null", len(tasks), "permutation") as progress:
        for position, score in map_tasks(null_pcc, [task for _, task in tasks]):
            scores[position] = score
            progress.add(1)
    found: dict[str, Nulls] = {}
    for name in dict.fromkeys(name for name, _ in tasks):
        own = [score for (of, _), score in zip(tasks, scores, strict=True) if of == name]
        found[name] = {section: np.stack([one[section] for one in own]) for section in (*test, POOLED)}
    return found


def _has_null(one: Prediction) -> bool:
    """Say whether a null is computed.

    Not for a method that ignores the image, an encoder trained from pixels, or a model trained on whole cases.
    """
    config = one.model.manifest.config
    on_cases = config.get("bulk") or config.get("targets") == "cases"
    return METHODS[config["model"]].is_learned and config["embeddings"] is not None and not on_cases


def _check_config(one: Prediction) -> None:
    """Raise ConfigError, before any task is started, where a model cannot be trained again from its manifest."""
    try:
        config = SpotsTrainConfig.of({**one.model.manifest.config, "run": {}}, f"the manifest of {one.model.path}")
        for number in range(len(one.meta["members"]) if config.method.combines_models else 0):
            _member(one.model, number)
    except (ConfigError, ArtifactError) as error:
        hint = "the permutation null trains this model again: train it with this version, or set permutations=0"
        msg = f"{error}\n  {hint}"
        raise ConfigError(msg) from None


def _task(one: Prediction, spots: Artifact, test: tuple[str, ...], *, seed: int, store: StoragePath) -> SpotNullTask:
    inputs = one.prediction.manifest.inputs
    epochs = int(one.meta.get("epoch", 0)) + 1  # a method that is fitted at once has none
    images = tuple(store / folder for folder in input_folders(inputs, "embeddings"))
    labels = one.model.manifest.inputs.get("completed")
    completed = store / labels if labels is not None else None
    retrieval = retrieval_of(one.prediction, store)
    return SpotNullTask(one.model.path, spots.path, images, test, epochs, retrieval, seed, completed)
