"""Permutation null on cases: scores of the same model, trained on labels permuted among the training cases.

One permutation is one task. The model is trained for as many epochs as the real one, without validation.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64

from raystp.cluster.progress import Progress
from raystp.cluster.session import session
from raystp.cluster.streams.tasks import map_tasks
from raystp.evaluate.metrics.genes import pcc_per_gene
from raystp.models.methods import METHODS
from raystp.models.training.fit import fit
from raystp.models.training.options import FitOptions
from raystp.models.training.setup import start
from raystp.steps.evaluate.cases.config import CasesEvaluateConfig
from raystp.steps.evaluate.cases.outcomes import HeldOutCases
from raystp.steps.evaluate.predictions import Prediction, retrieval_of
from raystp.steps.train.cases.cohort import features_of
from raystp.steps.train.cases.learner import CasesLearner, CasesSpec
from raystp.steps.train.cases.plan import limited_fit
from raystp.storage import StoragePath

NULL_BYTES = 1e9
"""Bytes of features that each process keeps in memory."""


@dataclass(frozen=True)
class CaseNullTask:
    """One permutation of one model; it is sent to a worker."""

    learner: CasesLearner
    fit: FitOptions
    held: HeldOutCases
    seed: int


def null_pcc(task: CaseNullTask) -> Float64[np.ndarray, " gene"]:
    """Return each gene's PCC over the held-out cases, of a model trained on permuted labels."""
    held = task.held
    order = np.random.default_rng([task.seed, 0xB1]).permutation(len(held.labels))
    setup = task.learner.setup(held.labels[order], held.labels[:0], torch.device("cpu"))
    state = start(setup, task.fit)
    for _ in fit(state, setup.train, task.fit):
        pass
    arrays = {name: value.numpy() for name, value in state.weights().items()}
    bags = (features_of(held.embed, case.slides) for case in held.cases)
    predicted = task.learner.predict(arrays, held.labels[order], bags)
    return pcc_per_gene(predicted, held.measured)[0]


def case_nulls(
    held: HeldOutCases, models: list[Prediction], permutations: int, *, config: CasesEvaluateConfig
) -> dict[str, Float64[np.ndarray, "permutation gene"]]:
    """Return the null of each model that was trained on cases, where its training cases are in the table."""
    able = [one for one in models if "bulk" in one.meta and held.train and one.meta["train"] == models[0].meta["train"]]
    tasks = [_task(one, held, config, seed) for one in able for seed in range(permutations)]
    if not tasks:
        return {}
    scores: list[Float64[np.ndarray, " gene"]] = [np.zeros(0)] * len(tasks)
    with session(config.run.address), Progress("null", len(tasks), "permutation") as progress:
        for position, score in map_tasks(null_pcc, tasks):
            scores[position] = score
            progress.add(1)
    parts = np.array_split(np.stack(scores), len(able))
    return {one.name: part for one, part in zip(able, parts, strict=True)}


def _task(one: Prediction, held: HeldOutCases, config: CasesEvaluateConfig, seed: int) -> CaseNullTask:
    trained = one.model.manifest.config
    cases = config.cases
    spec = CasesSpec(
        table=cases.path(config.run.store),
        scale=cases.scale,
        case=cases.case,
        images=held.embed,
        train=held.train,
        validation=(),
        genes=tuple(one.meta["genes"]),
        cache_bytes=NULL_BYTES,
    )
    method = METHODS[trained["model"]]
    limited = limited_fit(FitOptions(**trained["fit"]), method, len(held.train))
    fit_options = dataclasses.replace(
        limited,
        batch_size=int(one.meta.get("batch_size", limited.batch_size)),  # recorded where it was lowered
        epochs=int(one.meta["epoch"]) + 1,
        select="last",
        patience=None,
    )
    learner = CasesLearner(
        kind=method.name,
        spec=spec,
        options=method.options_on("cases")(**one.meta["options"]),
        meta=one.meta,
        seed=fit_options.seed,
        bag_tiles=trained["bag_tiles"],
        retrievals=(retrieval_of(one.prediction, StoragePath.of(config.run.store)),),
    )
    return CaseNullTask(learner, fit_options, held, seed)
