"""Ensembles whose members read other features, or predict through reference rows: many are one, and one is itself."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter, create_or_open, resolve
from raystp.errors import ConfigError, LeakError, ModelError
from raystp.expression.sections import embeddings_of
from raystp.expression.training_set import SpotTable, TrainingSetSpec, load_measured
from raystp.models.predict import predict_slide, predict_spots
from raystp.models.predictor import ContrastivePredictor, DirectPredictor
from raystp.models.store import load_model, save_model
from raystp.steps.embedding_source import input_folders, open_embeddings, open_embeddings_for
from raystp.steps.evaluate.spots.null import SpotNullTask, null_pcc
from raystp.steps.impute import step as impute
from raystp.steps.impute.work import SlidePredictor, SlideTask
from raystp.steps.serve.config import ServeConfig
from raystp.steps.serve.direct import DirectHandler
from raystp.steps.serve.handler import open_handler
from raystp.steps.train import step as train
from raystp.steps.train.reference import open_model
from raystp.steps.train.retrieval import Retrieval, retrieve
from raystp.storage import StoragePath
from tests.steps.conftest import predict_options

Finish = Callable[[StoragePath, str, str, Mapping[str, Any]], Artifact]

SPLIT = {"train": ["S1", "S2"], "test": ["S3"]}
CONTRASTIVE: dict[str, dict[str, Any]] = {
    "bleep": {"bleep": {"dim": 4, "dropout": 0.0}},
    "mclstexp": {"mclstexp": {"dim": 4, "layers": 1, "heads": 2, "head_dim": 4}},
}
FIT = {"epochs": 1, "batch_size": 4, "accumulate_batches": 1}


@pytest.fixture
def store(toy_store: StoragePath, finished: Finish) -> StoragePath:
    """The toy store, with `embed/wide`: the vector (100 + m, 7, n * n) for tile n of slide number m."""
    first = resolve(toy_store.uri, "embed/toy", "embed")
    wide = finished(toy_store, "embed", "wide", {**first.manifest.notes, "encoder_identity": "seed:9"})
    for slide, units in wide.manifest.notes["units"].items():
        for unit in units:
            old = (first.path / "embeddings" / slide / f"{unit}.parquet").read_table()
            vectors = tables.matrix(old["vector"])
            rows = np.column_stack([100 + vectors[:, 0], np.full(len(vectors), 7), vectors[:, 1] ** 2])
            columns = [*(old[one] for one in tables.TILES.names), tables.vectors(rows.astype(np.float32))]
            made: pa.Table = tables.of_columns(columns, tables.embeddings(3))
            (wide.path / "embeddings" / slide / f"{unit}.parquet").write_table(made)
    (toy_store.local_path / "genes.txt").write_text("A\nB\nC\nD\n")
    return toy_store


def _train(store: StoragePath, name: str, model: str = "ridge", **fields: Any) -> Artifact:
    """Train a model; a contrastive one keeps its first weights, which needs no Ray."""
    panel = {"name": "four", "file": str(store.local_path / "genes.txt")}
    given = {"name": name, "model": model, "spots": "spots/toy", "embeddings": "embed/toy", "panel": panel}
    options = {**CONTRASTIVE[model], "fit": FIT, "retrieval": {"k": 3}} if model in CONTRASTIVE else {}
    run = {"store": store.uri, "tracking": "none"}
    config = train.CONFIG.of({**given, "split": SPLIT, **options, **fields, "run": run})
    if model not in CONTRASTIVE:
        return train.run(config)
    sources = train.open_sources(config)
    writer = create_or_open(config, "train", train.inputs_of(config, sources))
    assert isinstance(writer, ArtifactWriter)
    plan = train._plan(config, sources)
    assert plan.tables is not None
    setup = plan.learner.setup(*plan.tables, torch.device("cpu"))  # type: ignore[attr-defined]  # of a training on spots
    save_model(writer.path, model, {**setup.model.state_dict(), **setup.extra}, {**plan.meta, "epoch": 0})
    return writer.finish({}, [], {})


def _ensemble(store: StoragePath, members: list[str], weights: str = "equal", **fields: Any) -> Artifact:
    run = {"store": store.uri, "tracking": "none"}
    options = {"members": [f"train/{name}" for name in members], "weights": weights}
    return train.run(train.CONFIG.of({"model": "ensemble", "ensemble": options, "name": "all", **fields, "run": run}))


def _spots(store: StoragePath, model: Artifact, sections: tuple[str, ...]) -> SpotTable:
    """Return spots with the features that a model reads."""
    meta, inputs = load_model(model.path)[2], model.manifest.inputs
    images = open_embeddings_for(meta, store.uri, input_folders(inputs, "images"), model.path)
    spec = TrainingSetSpec(resolve(store.uri, "spots/toy", "spots"), images, sections, (), 0.0, tuple(meta["genes"]))
    return load_measured(spec)[0]


def _predicted(store: StoragePath, model: Artifact, section: str = "S3") -> np.ndarray:
    """Return a model's prediction of a section, a contrastive one's through its training spots."""
    kind, arrays, meta = load_model(model.path)
    opened, spots = open_model(kind, arrays, meta), _spots(store, model, (section,))
    if isinstance(opened, ContrastivePredictor):
        reference = _spots(store, model, tuple(meta["train"]))
        return retrieve(opened, reference, spots.features, Retrieval.of(meta["retrieval"]))
    assert isinstance(opened, DirectPredictor)
    return predict_spots(opened, spots)


@pytest.mark.parametrize("model", list(CONTRASTIVE))
def test_a_contrastive_member_alone_is_itself_without_an_index(store: StoragePath, model: str) -> None:
    one = _train(store, "one", model)
    alone = _ensemble(store, ["one"])
    expected = _predicted(store, one)
    one.path.remove()
    np.testing.assert_array_equal(_predicted(store, alone), expected)


def test_members_of_any_features_and_methods_are_averaged_in_any_order(store: StoragePath) -> None:
    several: dict[str, dict[str, Any]] = {
        "narrow": {},
        "wide": {"embeddings": ["embed/wide", "embed/toy"], "neighbour_mean": 2},
        "near": {"model": "bleep", "embeddings": "embed/wide"},
        "far": {"model": "mclstexp", "neighbour_mean": 3},
    }
    found = [_predicted(store, _train(store, name, **fields)) for name, fields in several.items()]
    mixed = _ensemble(store, list(several))
    np.testing.assert_allclose(_predicted(store, mixed), np.mean(found, axis=0), atol=1e-5)
    meta = load_model(mixed.path)[2]
    assert [block["embeddings"] for block in meta["features"]["blocks"]] == ["toy", "wide"]
    assert meta["features"]["neighbour_mean"] == [2, 3]
    assert meta["d_image"] == 15
    assert [one["columns"] for one in meta["members"]] == [
        [[0, 2]],
        [[2, 5], [0, 2], [7, 10], [5, 7]],
        [[2, 5]],
        [[0, 2], [10, 12]],
    ]
    other = _ensemble(store, list(several)[::-1])
    np.testing.assert_allclose(_predicted(store, other), np.mean(found, axis=0), atol=1e-5)
    nested = _ensemble(store, ["all", "narrow"], name="nested")
    np.testing.assert_allclose(_predicted(store, nested), (np.mean(found, axis=0) + found[0]) / 2, atol=1e-5)


def test_a_mixed_ensemble_predicts_slides_and_requests_as_its_members(store: StoragePath) -> None:
    one, two = _train(store, "one"), _train(store, "two", "bleep", embeddings="embed/wide")
    mixed = _ensemble(store, ["one", "two"])
    embeddings = open_embeddings(store.uri, ["embed/toy", "embed/wide"])
    options = predict_options(k=3)
    target = store / "impute" / "mixed"
    spots = resolve(store.uri, "spots/toy", "spots")
    assert SlidePredictor(SlideTask(mixed, embeddings, None, spots, None, options, {}, target))("S3") == 6
    expected = (_predicted(store, one) + _predicted(store, two)) / 2
    table = (target / "predictions" / "S3.parquet").read_table()
    np.testing.assert_allclose(tables.matrix(table["expression"]), expected, atol=1e-5)
    handler = open_handler(ServeConfig.of({"model": "train/all", "run": {"store": store.uri}}))
    assert isinstance(handler, DirectHandler)
    features = tables.matrix(embeddings_of(embeddings, "S3")["vector"])
    np.testing.assert_allclose(predict_slide(handler.model, features, np.zeros((6, 3))), expected, atol=1e-5)
    assert [block["embeddings"] for block in handler.info()["blocks"]] == ["toy", "wide"]


def test_patients_of_reference_rows_are_refused(store: StoragePath) -> None:
    _train(store, "one", "bleep")
    _ensemble(store, ["one"])
    given = {"name": "leak", "model": "train/all", "embeddings": "embed/toy", "run": {"store": store.uri}}
    with pytest.raises(LeakError, match="own patient 'P1'"):  # another slide of patient P1
        impute.run(impute.CONFIG.of({**given, "slides": ["S4"], "own_rows": "leave_out"}))


def test_weights_are_fitted_without_the_rows_of_the_validation_side(store: StoragePath) -> None:
    split = {"train": ["S1"], "validation": ["S2"], "test": ["S3"]}
    members = [_train(store, "one", split=split), _train(store, "two", "bleep", embeddings="embed/wide", split=split)]
    both = _ensemble(store, ["one", "two"], "validation")
    weights = load_model(both.path)[1]["weights"]
    truth = _spots(store, members[0], ("S2",)).expression
    one, two = (_predicted(store, member, "S2") for member in members)
    grid = np.linspace(0, 1, 1001)
    errors = [float(np.square(share * one + (1 - share) * two - truth).sum()) for share in grid]
    np.testing.assert_allclose(weights[0], grid[int(np.argmin(errors))], atol=1e-3)


def test_the_null_of_a_member_alone_is_that_of_the_model(store: StoragePath) -> None:
    one = _train(store, "one", "bleep", embeddings=["embed/wide", "embed/toy"])
    _train(store, "two")
    found = []
    for model in (one, _ensemble(store, ["one"]), _ensemble(store, ["two", "one"])):
        spots = store / model.manifest.inputs["spots"]
        images = tuple(store / folder for folder in input_folders(model.manifest.inputs, "images"))
        found.append(null_pcc(SpotNullTask(model.path, spots, images, ("S3",), 1, Retrieval(k=3), 0))["S3"])
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
    assert np.isfinite(found[2]).all()


def test_embeddings_that_lack_a_members_features_are_refused(store: StoragePath) -> None:
    _train(store, "one")
    _train(store, "two", embeddings="embed/wide")
    message = r"train/two-\w+ reads encoder 'tiny' \(seed:9\) .*, and there are encoder 'tiny' \(seed:0\)"
    with pytest.raises(ConfigError, match=message):
        _ensemble(store, ["one", "two"], embeddings="embed/toy")
    _ensemble(store, ["one", "two"])
    given = {"name": "less", "model": "train/all", "embeddings": "embed/toy", "run": {"store": store.uri}}
    with pytest.raises(ModelError, match="reads 2 embeddings"):
        impute.run(impute.CONFIG.of(given))
