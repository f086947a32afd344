"""The null of a score over cases: the same model, trained on labels that were dealt to the wrong training cases.

One permutation is one task. The model is trained for as many epochs as the real one, without validation.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from raystp.cluster.progress import Progress
from raystp.cluster.session import session
from raystp.cluster.streams.tasks import map_tasks
from raystp.evaluate.metrics.genes import pcc_per_gene
from raystp.models.attention.model import AttentionOptions, AttentionRegression
from raystp.models.attention.predictor import AttentionPredictor
from raystp.models.training.fit import FitOptions, fit
from raystp.steps.evaluate.cases.config import CasesEvaluateConfig
from raystp.steps.evaluate.cases.outcomes import HeldOutCases
from raystp.steps.evaluate.predictions import Prediction
from raystp.steps.train.bulk_cases import features_of
from raystp.steps.train.bulk_learner import BulkLearner, BulkRecipe
from raystp.steps.train.work import start

NULL_BYTES = 1e9
"""Of features that each process keeps."""


@dataclass(frozen=True)
class CaseNullTask:
    """One permutation of one model."""

    learner: BulkLearner
    fit: FitOptions
    held: HeldOutCases
    seed: int


def null_pcc(work: CaseNullTask) -> Float64[np.ndarray, " gene"]:
    """Return each gene's PCC over the held-out cases, of a model trained on labels of the wrong cases."""
    held = work.held
    order = np.random.default_rng([work.seed, 0xB1]).permutation(len(held.labels))
    lesson = work.learner.lesson(held.labels[order], held.labels[:0], torch.device("cpu"))
    training = start(lesson, work.fit)
    for _ in fit(training, lesson.train, work.fit):
        pass
    model = training.model.eval()
    assert isinstance(model, AttentionRegression)  # as this learner makes it
    ready = AttentionPredictor("attention", list(work.learner.recipe.genes), work.learner.meta["d_image"], model)
    predicted = np.stack([ready.predict_bag(features_of(held.embed, case.slides)) for case in held.cases])
    return pcc_per_gene(predicted, held.measured)[0]


def nulls_of(
    held: HeldOutCases, models: list[Prediction], permutations: int, *, config: CasesEvaluateConfig
) -> dict[str, Float64[np.ndarray, "permutation gene"]]:
    """Return the null of each model that learned from cases, where its training cases are here."""
    able = [one for one in models if "bulk" in one.meta and held.train and one.meta["train"] == models[0].meta["train"]]
    work = [_null(one, held, config, seed) for one in able for seed in range(permutations)]
    if not work:
        return {}
    answers: list[Float64[np.ndarray, " gene"]] = [np.zeros(0)] * len(work)
    with session(config.run.address), Progress("null", len(work), "permutation") as progress:
        for position, answer in map_tasks(null_pcc, work):
            answers[position] = answer
            progress.add(1)
    parts = np.array_split(np.stack(answers), len(able))
    return {one.name: part for one, part in zip(able, parts, strict=True)}


def _null(one: Prediction, held: HeldOutCases, config: CasesEvaluateConfig, seed: int) -> CaseNullTask:
    asked: dict[str, Any] = one.model.manifest.config
    bulk = config.cases
    recipe = BulkRecipe(
        table=bulk.place(config.run.store),
        scale=bulk.scale,
        case=bulk.case,
        images=held.embed,
        train=held.train,
        validation=(),
        genes=tuple(one.meta["genes"]),
        kept_bytes=NULL_BYTES,
    )
    epochs = int(one.meta["epoch"]) + 1
    options = FitOptions(**{**asked["fit"], "epochs": epochs, "select": "last", "patience": None})
    own = AttentionOptions(**one.meta["options"])
    return CaseNullTask(BulkLearner(recipe, one.meta, options.seed, own, asked["bags"]["tiles"]), options, held, seed)
