"""The null of a score: the same model, trained on measurements that were shuffled among the training spots.

One permutation is one task: fit, predict the test sections, correlate. A model that scores no better than this has
learned nothing from the pictures. BLEEP is trained in the same number of epochs as the real one, without validation;
its bank holds the shuffled rows.
"""

import functools
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Float32, Float64

from raystp.artifacts import Artifact, open_artifact
from raystp.cluster.progress import Progress
from raystp.cluster.session import session
from raystp.cluster.streams.tasks import map_tasks
from raystp.config import RunConfig
from raystp.evaluate.metrics.genes import pcc_per_gene
from raystp.evaluate.metrics.score import POOLED, Nulls
from raystp.expression.training_set import SpotTable, TrainingSetSpec, join_section, load_training_set, stack_sections
from raystp.impute.weights import WEIGHTS
from raystp.index.expression.shard import in_memory
from raystp.index.search.exact import search
from raystp.models.bleep.model import seeded_bleep
from raystp.models.predictor import predictor
from raystp.models.store import load_model
from raystp.models.training.fit import FitOptions, TrainState, fit
from raystp.models.training.samples import PairDataset
from raystp.steps.evaluate.predictions import Prediction
from raystp.steps.train.baselines import fit_baseline
from raystp.steps.train.config import TrainConfig
from raystp.steps.train.direct import DirectLearner, predict_stack
from raystp.steps.train.learners import LEARNERS, learner_of
from raystp.steps.train.work import start
from raystp.storage import StoragePath


@dataclass(frozen=True)
class SpotNullTask:
    """One permutation of one model."""

    model: StoragePath
    spots: StoragePath
    embed: StoragePath
    test: tuple[str, ...]
    epochs: int
    k: int
    weights: str
    seed: int


def null_pcc(work: SpotNullTask) -> dict[str, Float64[np.ndarray, " gene"]]:
    """Return the PCC of each gene in each test section, and pooled, under one permutation."""
    config, train, test = _data(work.model, work.spots, work.embed, work.test)
    shuffled = train.shuffled(np.random.default_rng([work.seed, 0xB1EE9]))
    predicted = _refit(config, shuffled, test, work)
    parts = {name: test.group == number for number, name in enumerate(test.sections)}
    found = {name: pcc_per_gene(predicted[rows], test.expression[rows])[0] for name, rows in parts.items()}
    return found | {POOLED: pcc_per_gene(predicted, test.expression)[0]}


@functools.lru_cache(maxsize=2)
def _data(
    model: StoragePath, spots: StoragePath, embed: StoragePath, test: tuple[str, ...]
) -> tuple[TrainConfig, SpotTable, SpotTable]:
    """Read the training and the test spots once per process."""
    _, _, meta = load_model(model)
    measured, images = open_artifact(spots, "spots"), open_artifact(embed, "embed")
    config = TrainConfig.of({**open_artifact(model, "train").manifest.config, "run": {}})
    genes, validation = tuple(meta["genes"]), tuple(meta["validation"])
    train, _ = load_training_set(
        TrainingSetSpec(measured, images, tuple(meta["train"]), validation, config.split.validation_block, genes)
    )
    return config, train, stack_sections([join_section(measured, images, name) for name in test], genes)


def _refit(
    config: TrainConfig, train: SpotTable, test: SpotTable, work: SpotNullTask
) -> Float32[np.ndarray, "query gene"]:
    features = test.features
    if config.model not in LEARNERS:
        meta = {"genes": [str(n) for n in range(train.expression.shape[1])], "d_image": features.shape[1]}
        ready = predictor(config.model, fit_baseline(config, train), meta)
        return ready.predict(features)  # type: ignore[union-attr]  # every baseline answers by itself
    options = FitOptions(**{**config.model_dump()["fit"], "epochs": work.epochs, "select": "last", "patience": None})
    if config.model != "bleep":
        return _refit_direct(config, options, train, test=test, model=work.model)
    return _refit_bleep(config, options, train, features=features, work=work)


def _refit_direct(
    config: TrainConfig, options: FitOptions, train: SpotTable, *, test: SpotTable, model: StoragePath
) -> Float32[np.ndarray, "query gene"]:
    kind, _, meta = load_model(model)
    nowhere = Artifact(model, open_artifact(model, "train").manifest)
    recipe = TrainingSetSpec(nowhere, nowhere, (), (), 0.0, tuple(meta["genes"]))
    learner = cast("DirectLearner", learner_of(config, recipe, meta))
    lesson = learner.lesson(train, None, torch.device("cpu"))
    training = start(lesson, options)
    for _ in fit(training, lesson.train, options):
        pass
    arrays = {name: value.numpy() for name, value in training.weights().items()} | lesson.extra
    return predict_stack(predictor(kind, arrays, meta), test)


def _refit_bleep(
    config: TrainConfig,
    options: FitOptions,
    train: SpotTable,
    *,
    features: Float32[np.ndarray, "query feature"],
    work: SpotNullTask,
) -> Float32[np.ndarray, "query gene"]:
    model = seeded_bleep(features.shape[1], train.expression.shape[1], config.bleep, seed=options.seed)
    model.standardize(train.features)
    training = TrainState.start(model, model.loss, options)
    pairs = PairDataset.of(torch.from_numpy(train.features), torch.from_numpy(train.expression))
    for _ in fit(training, pairs, options):
        pass
    model.eval()
    with torch.inference_mode():
        bank = model.embed_spots(torch.from_numpy(train.expression)).numpy()
        queries = model.embed_images(torch.from_numpy(features)).numpy()
    scores, rows = search(bank, queries, min(work.k, len(bank)), metric="cosine")
    way = WEIGHTS[work.weights]
    read = scores if way.reads == "scores" else np.square(queries[:, None] - bank[rows]).sum(axis=2)
    return in_memory(train.expression).share_of_sum(way.weigh(read), rows)


def permuted(
    models: list[Prediction], spots: Artifact, test: tuple[str, ...], permutations: int, *, run: RunConfig
) -> dict[str, Nulls]:
    """Return each model's null: test section (and pooled) -> PCC of each gene under each permutation."""
    work = [
        (one.name, _work(one, spots, test, seed=seed, store=StoragePath.of(run.store)))
        for one in models
        if _has_null(one)
        for seed in range(permutations)
    ]
    answers: list[dict[str, Float64[np.ndarray, " gene"]]] = [{}] * len(work)
    with session(run.address), Progress("null", len(work), "permutation") as progress:
        for position, answer in map_tasks(null_pcc, [one for _, one in work]):
            answers[position] = answer
            progress.add(1)
    found: dict[str, Nulls] = {}
    for name in dict.fromkeys(name for name, _ in work):
        own = [answer for (of, _), answer in zip(work, answers, strict=True) if of == name]
        found[name] = {section: np.stack([one[section] for one in own]) for section in (*test, POOLED)}
    return found


def _has_null(one: Prediction) -> bool:
    """Say whether a null is computed: not for the gene mean, whose PCC is 0, nor for a tower trained on pixels.

    Nor for a model that learned from labels of whole cases: it has no spots to shuffle.
    """
    config = one.model.manifest.config
    return config["model"] != "gene_mean" and config["embeddings"] is not None and not config.get("bulk")


def _work(one: Prediction, spots: Artifact, test: tuple[str, ...], *, seed: int, store: StoragePath) -> SpotNullTask:
    config = one.prediction.manifest.config
    epochs = int(one.meta.get("epoch", 0)) + 1  # a baseline has none
    images = store / one.prediction.manifest.inputs["embeddings"]
    return SpotNullTask(one.model.path, spots.path, images, test, epochs, config["k"], config["weights"], seed)
