"""Models that predict from features alone, in the service: alone and in batches, and what a request may not ask."""

import json
from typing import Any

import numpy as np
import pytest

from raystp.artifacts import Artifact, resolve
from raystp.cluster.serving.messages import ImputeRequest, ImputeResponse, RequestOptions
from raystp.errors import ConfigError, ModelError
from raystp.models.methods import open_predictor
from raystp.models.nh2st.model import seeded_nh2st
from raystp.models.nh2st.options import Nh2stOptions
from raystp.models.predictor import DirectPredictor
from raystp.models.store import load_model, save_model
from raystp.steps.serve.config import ServeConfig
from raystp.steps.serve.direct import DirectHandler
from raystp.steps.serve.handler import check_inputs, open_handler
from raystp.steps.train import step as train
from raystp.steps.train.config import TrainConfig
from raystp.storage import StoragePath

FEATURES = np.array([[0, 1], [2, 3], [1, 5], [3, 3]], np.float32)


def _served(store: StoragePath, model: str, **fields: Any) -> DirectHandler:
    opened = open_handler(ServeConfig.of({"model": model, **fields, "run": {"store": store.uri}}))
    assert isinstance(opened, DirectHandler)
    return opened


def _request(features: np.ndarray = FEATURES, **options: Any) -> ImputeRequest:
    return ImputeRequest(RequestOptions(**options), features)


def _answer(handler: DirectHandler, *requests: ImputeRequest) -> list[ImputeResponse]:
    answers = handler.impute([handler.prepare(request) for request in requests])
    assert all(isinstance(one, ImputeResponse) for one in answers)
    return [one for one in answers if isinstance(one, ImputeResponse)]


@pytest.fixture
def ensemble(toy_store: StoragePath) -> Artifact:
    """An ensemble of a ridge and of the gene mean, in the toy store."""
    run = {"store": toy_store.uri, "tracking": "none"}
    given = {"spots": "spots/toy", "embeddings": "embed/toy", "panel": {"variable": 4}, "run": run}
    for model in ("ridge", "gene_mean"):
        split = {"train": ["S1", "S2"], "test": ["S3"]}
        train.run(TrainConfig.of({**given, "model": model, "name": model, "split": split}))
    members = {"members": ["train/ridge", "train/gene_mean"]}
    return train.run(TrainConfig.of({"model": "ensemble", "name": "both", "ensemble": members, "run": run}))


def test_the_service_answers_as_the_model_in_any_batch(toy_store: StoragePath, ensemble: Artifact) -> None:
    handler, model = _served(toy_store, "train/both"), open_predictor(*load_model(ensemble.path))
    assert isinstance(model, DirectPredictor)
    expected = model.predict(FEATURES)
    (alone,) = _answer(handler, _request())
    np.testing.assert_array_equal(alone.expression, expected)
    two_genes = [handler.model.genes[2], handler.model.genes[0]]
    parts = _answer(
        handler,
        _request(FEATURES[:1]),
        _request(FEATURES, genes=two_genes),
        _request(FEATURES[1:]),
        _request(FEATURES[:0]),
    )
    np.testing.assert_allclose(parts[0].expression, expected[:1], atol=1e-6)
    np.testing.assert_allclose(parts[1].expression, expected[:, [2, 0]], atol=1e-6)
    np.testing.assert_allclose(parts[2].expression, expected[1:], atol=1e-6)
    assert parts[3].expression.shape == (0, 4)
    assert json.loads(alone.to_json())["distance"] == [None] * 4
    info = handler.info()
    assert (info["method"], info["model"], info["genes"]) == ("ensemble", ensemble.manifest.folder, model.genes)


@pytest.mark.parametrize("options", [{"k": 5}, {"weights": "mean"}, {"spread": True}, {"without": ["P1"]}])
def test_options_of_neighbours_are_refused(toy_store: StoragePath, options: dict[str, Any]) -> None:
    handler = _served(toy_store, "train/toy")
    with pytest.raises(ModelError, match=f"{next(iter(options))}: this gene_mean model has no reference index"):
        handler.prepare(_request(**options))


def test_other_genes_features_and_pixels_are_refused(toy_store: StoragePath) -> None:
    handler = _served(toy_store, "train/toy")
    with pytest.raises(ModelError, match="the model has no genes 'X'; it has 4 genes, such as A, B, C, D"):
        handler.prepare(_request(genes=["A", "X"]))
    with pytest.raises(ModelError, match="the model reads rows of 2 values, got rows of 3"):
        handler.prepare(_request(np.zeros((1, 3), np.float32)))
    with pytest.raises(ConfigError, match="this service has no encoder"):
        handler.prepare(ImputeRequest(RequestOptions(), images=["AA=="]))


def test_an_index_belongs_to_a_model_that_needs_one(joint_store: StoragePath) -> None:
    run = {"store": joint_store.uri}
    with pytest.raises(ModelError, match="is a bleep model, which needs a reference index: run `raystp index`"):
        check_inputs(ServeConfig.of({"model": "train/joint", "run": run}))
    with pytest.raises(ModelError, match=r"is a gene_mean model without an index: remove run\.shard_actors"):
        check_inputs(ServeConfig.of({"model": "train/toy", "run": {**run, "shard_actors": 2}}))


def test_a_model_that_reads_neighbours_is_refused(toy_store: StoragePath) -> None:
    path = resolve(toy_store.uri, "train/toy", "train").path
    options: dict[str, Any] = {"dim": 8, "heads": 2, "neighbours_at_inference": True}
    meta = load_model(path)[2] | {"options": options}
    save_model(path, "nh2st", dict(seeded_nh2st(2, 4, Nh2stOptions(**options), seed=0).state_dict()), meta)
    with pytest.raises(ModelError, match="this nh2st model reads the neighbours of each tile, which a request"):
        _served(toy_store, "train/toy")
