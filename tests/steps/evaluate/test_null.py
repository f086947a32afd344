"""The permutation null of a retrieving model is the null of the retrieval that its score was made with."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raystp import tables
from raystp.artifacts import Artifact, resolve
from raystp.cluster.serving.messages import ImputeRequest, ImputeResponse, RequestOptions
from raystp.errors import ConfigError
from raystp.evaluate.metrics.genes import pcc_per_gene
from raystp.expression.sections import embeddings_of
from raystp.expression.training_set import load_training_set
from raystp.impute.calibration import Calibration
from raystp.impute.imputer import NeighborImputer
from raystp.index.open import open_reference_index
from raystp.index.reference import ReferenceRows
from raystp.index.search.kinds import IndexParams
from raystp.index.write import write_reference_index
from raystp.models.methods import METHODS, open_predictor
from raystp.models.predictor import ContrastivePredictor
from raystp.models.store import load_model
from raystp.models.training.fit import fit
from raystp.models.training.setup import SpotInputs, start
from raystp.steps.evaluate.predictions import retrieval_of
from raystp.steps.evaluate.spots import null
from raystp.steps.impute import step as impute
from raystp.steps.index import step as index
from raystp.steps.serve.config import ServeConfig
from raystp.steps.serve.handler import ImputeHandler, open_handler
from raystp.steps.train import step as train
from raystp.steps.train.retrieval import Retrieval
from raystp.steps.train.spots.config import SpotsTrainConfig
from raystp.steps.train.spots.learner import SpotsLearner
from raystp.steps.train.spots.plan import plan_training
from raystp.storage import StoragePath

RETRIEVALS = [("image", "l2", "weighted_average"), ("image", "cosine", "mean"), ("expression", "l2", "mean")]


def _predicted(store: Path, vectors: str, metric: str, weights: str) -> Artifact:
    """Index the smoke model by these vectors and this metric, and predict its test patient."""
    name, run = f"{vectors}-{metric}", {"store": str(store)}
    values: dict[str, Any] = {"name": name, "model": "train/smoke-bleep", "spots": "spots/smoke"}
    values |= {"embeddings": "embed/smoke", "vectors": vectors, "metric": metric, "run": run}
    made = index.run(index.CONFIG.of(values))
    values = {
        "name": name,
        "model": "train/smoke-bleep",
        "embeddings": "embed/smoke",
        "index": made.path.uri,
        "run": run,
    }
    return impute.run(impute.CONFIG.of({**values, "k": 7, "weights": weights}))


def _task(store: Path, prediction: Artifact) -> null.SpotNullTask:
    found = {step: resolve(str(store), f"{step}/smoke", step).path for step in ("spots", "embed")}
    model = resolve(str(store), "train/smoke-bleep", "train").path
    retrieval = retrieval_of(prediction, StoragePath.of(store))
    return null.SpotNullTask(model, found["spots"], (found["embed"],), ("patient-C",), 2, retrieval, seed=3)


def _through_an_index(task: null.SpotNullTask, folder: Path) -> np.ndarray:
    """Train on the same permuted spots; predict through a reference index on disk, as `impute` does."""
    _, _, meta = load_model(task.model)
    config, train, test = null._data(task.model, task.spots, task.embed, task.test)
    shuffled = train.shuffled(np.random.default_rng([task.seed, 0xB1EE9]))
    inputs = SpotInputs(shuffled, None, int(meta["d_image"]), meta, config.fit.seed, torch.device("cpu"))
    setup = METHODS["bleep"].setup(config.options, inputs)
    options = dataclasses.replace(config.fit, epochs=task.epochs, select="last", patience=None)
    state = start(setup, options)
    for _ in fit(state, setup.train, options):
        pass
    model = open_predictor("bleep", {name: value.numpy() for name, value in state.weights().items()}, meta)
    assert isinstance(model, ContrastivePredictor)
    embed = model.embed_images if task.retrieval.vectors == "image" else model.embed_spots
    rows = ReferenceRows(
        vectors=embed(shuffled.features if task.retrieval.vectors == "image" else shuffled.expression),
        expression=shuffled.expression,
        genes=list(meta["genes"]),
        sections=["s"] * len(shuffled.group),
        spots=list(shuffled.spots),
        patients=["p"] * len(shuffled.group),
    )
    target = StoragePath.of(folder)
    described = write_reference_index(target, rows, shards=2, metric=task.retrieval.metric, params=IndexParams("exact"))
    how = task.retrieval
    imputer = NeighborImputer(model, open_reference_index(target, described), how.weights, how.temperature)
    predicted = imputer.impute(test.features, task.retrieval.k).expression
    return pcc_per_gene(predicted, test.expression)[0]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("retrieval", RETRIEVALS, ids="-".join)
def test_the_null_of_an_index_is_the_null_of_its_own_retrieval(
    smoke_store: Path, tmp_path: Path, retrieval: tuple[str, str, str]
) -> None:
    vectors, metric, weights = retrieval
    task = _task(smoke_store, _predicted(smoke_store, vectors, metric, weights))
    assert (task.retrieval.vectors, task.retrieval.metric) == (vectors, metric)
    assert (task.retrieval.k, task.retrieval.weights) == (7, weights)
    found = null.null_pcc(task)["patient-C"]
    np.testing.assert_allclose(found, _through_an_index(task, tmp_path), atol=1e-4)
    other = null.null_pcc(dataclasses.replace(task, retrieval=Retrieval(k=7, weights=weights)))["patient-C"]
    assert np.abs(found - other).max() > 1e-2  # the default retrieval has another null


@pytest.mark.faults
@pytest.mark.ray
@pytest.mark.slow
def test_the_epoch_and_the_index_use_the_retrieval_of_the_training(smoke_store: Path) -> None:
    run = {"store": str(smoke_store), "tracking": "none"}
    values: dict[str, Any] = {"name": "by-l2", "spots": "spots/smoke", "embeddings": "embed/smoke", "run": run}
    values |= {"split": {"test": ["patient-C"], "validation": ["patient-B"]}, "panel": {"variable": 20}}
    values |= {"fit": {"epochs": 1, "batch_size": 8, "accumulate_batches": 1}}
    config = train.CONFIG.of({**values, "retrieval": {"vectors": "image", "metric": "l2", "k": 5}})
    model = train.run(config)
    assert isinstance(config, SpotsTrainConfig)
    learner = plan_training(config, train.open_sources(config)).learner
    assert isinstance(learner, SpotsLearner)
    spots, held = load_training_set(learner.spec)
    assert held is not None
    trained = load_model(model.path)[1]
    for retrieval, same in ((Retrieval("image", "l2", 5), True), (Retrieval(k=5), False)):
        predicted = dataclasses.replace(learner, retrieval=retrieval).predict(trained, spots, held)
        pcc = float(pcc_per_gene(predicted, held.expression)[0].mean())
        assert (abs(pcc - model.manifest.notes["score"]["validation_pcc"]) < 1e-5) == same
    values = {"name": "by-l2", "model": model.path.uri, "spots": "spots/smoke", "embeddings": "embed/smoke"}
    made = index.run(index.CONFIG.of({**values, "run": {"store": str(smoke_store)}}))
    assert (made.manifest.notes["vectors"], made.manifest.notes["bank"]["metric"]) == ("image", "l2")


@pytest.mark.faults
@pytest.mark.ray
@pytest.mark.slow
def test_predictions_take_the_models_retrieval_and_its_calibration(smoke_store: Path) -> None:
    run = {"store": str(smoke_store), "tracking": "none"}
    values: dict[str, Any] = {"name": "soft", "spots": "spots/smoke", "embeddings": "embed/smoke", "run": run}
    values |= {"split": {"test": ["patient-C"], "validation": ["patient-B"]}, "panel": {"variable": 20}}
    values |= {"fit": {"epochs": 1, "batch_size": 8, "accumulate_batches": 1}}
    soft = {"k": "all", "weights": "softmax", "temperature": 0.3}
    model = train.run(train.CONFIG.of({**values, "retrieval": {**soft, "calibrate": True}}))
    meta = load_model(model.path)[2]
    fitted = Calibration.from_json(meta["calibration"])
    run = {"store": str(smoke_store)}
    sources = {"model": model.path.uri, "spots": "spots/smoke", "embeddings": "embed/smoke", "run": run}
    made = index.run(index.CONFIG.of({**sources, "name": "soft"}))
    sources |= {"index": made.path.uri}
    plain, changed = (
        impute.run(impute.CONFIG.of({**sources, "name": name, "calibrate": how}))
        for name, how in (("plain", False), ("changed", None))
    )
    for one, calibrated in ((plain, False), (changed, True)):
        assert one.manifest.notes["retrieval"] == {**soft, "calibrated": calibrated}
        assert retrieval_of(one, StoragePath.of(smoke_store)) == Retrieval.of(meta["retrieval"])
    file = f"predictions/{plain.manifest.notes['slides'][0]}.parquet"
    before, after = (tables.matrix(one.table(file, tables.predictions(20))["expression"]) for one in (plain, changed))
    np.testing.assert_allclose(after, fitted.expression(before.astype(np.float32)), atol=1e-2)  # stored as float16
    assert after.std(axis=0).mean() > before.std(axis=0).mean()
    with pytest.raises(ConfigError, match=r"calibrated for k=all, weights=softmax, temperature=0\.3"):
        impute.run(impute.CONFIG.of({**sources, "name": "other", "k": 5, "calibrate": True}))
    handler = open_handler(ServeConfig.of({"model": sources["model"], "index": made.path.uri, "run": run}))
    assert isinstance(handler, ImputeHandler)
    assert handler.info()["retrieval"] == {**soft, "calibrated": True}
    tiles = embeddings_of(resolve(str(smoke_store), "embed/smoke", "embed"), plain.manifest.notes["slides"][0])
    request = ImputeRequest(RequestOptions(), tables.matrix(tiles["vector"]))
    (answer,) = handler.impute([handler.prepare(request)])
    assert isinstance(answer, ImputeResponse)
    np.testing.assert_allclose(answer.expression, after, atol=1e-2)
