"""The methods that answer by themselves, as steps: trained, predicted, scored with their nulls, and the same again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch

from raystp import tables
from raystp.artifacts import Artifact, Manifest, resolve
from raystp.errors import ConfigError, EncoderError, ModelError, SectionError
from raystp.expression.training_set import SpotTable, TrainingSetSpec
from raystp.models.attention.options import AttentionOptions
from raystp.models.bleep.options import BleepOptions
from raystp.models.genequery.options import GeneQueryOptions
from raystp.models.nh2st.options import Nh2stOptions
from raystp.models.store import load_model
from raystp.steps.evaluate import step as evaluate
from raystp.steps.impute import step as impute
from raystp.steps.train import step as train
from raystp.steps.train.config import TrainConfig
from raystp.steps.train.spots.learner import SpotsLearner
from raystp.storage import StoragePath
from tests.conftest import ROOT

METHODS = ("nh2st", "genequery", "attention")


def _config(store: Path, method: str, **changes: Any) -> TrainConfig:
    overrides = [f"run.store={store}", "run.tracking=none", *(f"{key}={value}" for key, value in changes.items())]
    return train.CONFIG.load(ROOT / "conf" / "train" / f"smoke-{method}.yaml", overrides)


@pytest.fixture(scope="module")
def predicted(smoke_store: Path) -> dict[str, Artifact]:
    """Each method's prediction of the test patient."""
    found = {}
    for method in METHODS:
        model = train.run(_config(smoke_store, method))
        asked: dict[str, Any] = {"name": f"smoke-{method}", "model": model.path.uri, "embeddings": "embed/smoke"}
        asked |= {"spots": "spots/smoke", "run": {"store": str(smoke_store)}}
        found[method] = impute.run(impute.CONFIG.of(asked))
    return found


@pytest.mark.ray
@pytest.mark.slow
def test_each_method_predicts_the_test_patient_in_finite_numbers(predicted: dict[str, Artifact]) -> None:
    for prediction in predicted.values():
        assert "patient-C" in prediction.manifest.notes["slides"]
        adata = ad.read_h5ad(prediction.path.local_path / "anndata" / "patient-C.h5ad")
        assert adata.shape[1] == 50
        assert np.isfinite(adata.X).all()


@pytest.mark.ray
@pytest.mark.slow
def test_attention_leaves_its_maps_and_the_slides_own_expression(predicted: dict[str, Artifact]) -> None:
    adata = ad.read_h5ad(predicted["attention"].path.local_path / "anndata" / "patient-C.h5ad")
    np.testing.assert_allclose(adata.layers["attention"].sum(axis=0), 1.0, rtol=1e-4)
    pooled = (adata.layers["attention"] * adata.X).sum(axis=0)
    np.testing.assert_allclose(adata.var["slide"], pooled, atol=1e-3)


@pytest.mark.ray
@pytest.mark.slow
def test_they_are_scored_together_seen_and_unseen_genes_apart_with_their_nulls(
    predicted: dict[str, Artifact], smoke_store: Path
) -> None:
    config = {
        "name": "methods",
        "spots": "spots/smoke",
        "predictions": [one.path.uri for one in predicted.values()],
        "permutations": 2,
        "planted": str(resolve(str(smoke_store), "demo/smoke", "demo").path / "planted"),
        "run": {"store": str(smoke_store), "tracking": "none"},
    }
    scored = evaluate.run(evaluate.CONFIG.of(config))
    rows = scored.table("scores.parquet", tables.SCORES).to_pylist()
    models = {row["model"] for row in rows}
    assert models >= {*METHODS, "genequery, mean of seen genes", "planted mean"}
    assert {"seen", "unseen", "planted"} <= {row["genes"] for row in rows}
    nulls = {row["model"] for row in rows if row["null_mean"] is not None}
    assert nulls >= set(METHODS)
    assert "`attention` contribution: over" in scored.manifest.notes["summary"]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("method", ["nh2st", "genequery"])
def test_two_workers_train_the_model_of_one(method: str, smoke_store: Path, tmp_path: Path) -> None:
    still = {"nh2st": {"nh2st.dropout": 0}, "genequery": {"genequery.dropout": 0}}[method]
    sources = {part: resolve(str(smoke_store), f"{part}/smoke", part).path.uri for part in ("spots", "embed")}
    named = {"spots": sources["spots"], "embeddings": sources["embed"], "fit.epochs": 1, "fit.select": "last", **still}
    one = train.run(_config(tmp_path / "one", method, **named))
    two = train.run(_config(tmp_path / "two", method, **named, **{"run.workers": 2, "run.gather": "true"}))
    assert one.manifest.fingerprint == two.manifest.fingerprint
    found = load_model(two.path)[1]
    for name, values in load_model(one.path)[1].items():
        np.testing.assert_allclose(found[name], values, atol=1e-4, err_msg=name)


def test_a_models_own_options_alone_count_in_the_name_of_what_it_trains() -> None:
    base = {"spots": "spots/a", "embeddings": "embed/a", "split": {"test": ["P"]}, "run": {}}
    bleep = TrainConfig.of(base)
    assert (
        bleep.fingerprint_values()
        == TrainConfig.of({**base, "nh2st": {"dim": 64}, "bags": {"parts": 3}}).fingerprint_values()
    )
    nh2st = TrainConfig.of({**base, "model": "nh2st"})
    assert (
        nh2st.fingerprint_values()
        != TrainConfig.of({**base, "model": "nh2st", "nh2st": {"dim": 64}}).fingerprint_values()
    )
    assert (nh2st.fit.epochs, nh2st.fit.lr, nh2st.fit.batch_size) == (8, 5e-4, 8)
    assert (nh2st.fit.select, nh2st.fit.patience) == ("last", None)  # nobody validates
    checked = TrainConfig.of({**base, "model": "nh2st", "split": {"test": ["P"], "validation": ["Q"]}})
    assert (checked.fit.select, checked.fit.patience, checked.fit.epochs) == ("best_pcc", 20, 200)
    assert TrainConfig.of({**base, "model": "genequery", "genequery": {"context": "spot"}}).fit.batch_size == 1


DESCRIBED = {"text.descriptions": "FILE", "text.absent": "symbol"}
BAD: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("genequery", {"text.encoder": "weighted"}, ConfigError, "embeds gene texts: set text.names"),
    ("genequery", {"text.encoder": "table"}, ConfigError, "needs text.table"),
    ("genequery", {"text.encoder": "hashed", "text.descriptions": "FILE"}, SectionError, "genes have no text"),
    ("genequery", {**DESCRIBED, "text.encoder": "model", "text.folder": "FOLDER"}, EncoderError, "model.safetensors"),
    ("nh2st", {"fit.batch_size": 1}, ConfigError, "batch_size must be at least 2"),
    ("nh2st", {"nh2st.heads": 5}, ModelError, "dim must be a multiple of heads"),
    ("nh2st", {"fit.batch_size": 500}, ModelError, "needs 500 training samples, got"),
]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("bad", BAD, ids=[str(one[1]) for one in BAD])
def test_bad_input_is_a_sentence(
    smoke_store: Path, tmp_path: Path, bad: tuple[str, dict[str, Any], type[Exception], str]
) -> None:
    method, changes, kind, sentence = bad
    (tmp_path / "texts.txt").write_text("TUM_UP01####raised in tumour\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    places = {"FILE": tmp_path / "texts.txt", "FOLDER": tmp_path / "folder"}
    with pytest.raises(kind, match=sentence):
        train.run(_config(smoke_store, method, **{key: places.get(value, value) for key, value in changes.items()}))


@pytest.mark.parametrize("method", ["nh2st", "bleep", "attention"])
def test_a_validation_error_stands_beside_that_of_the_training_means_in_the_unit_of_the_labels(
    method: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    one = Artifact(StoragePath.of(tmp_path), Manifest(step="spots", name="a", fingerprint="0"))
    squares = np.stack([np.arange(12.0), np.zeros(12), np.ones(12)], axis=1)
    names = tuple(str(number) for number in range(12))
    features, expression = rng.normal(size=(12, 5)).astype(np.float32), rng.random((12, 4)).astype(np.float32)
    table = SpotTable(("a",), ("a",), np.zeros(12, np.int64), names, squares, features, expression, np.ones(12))
    options: Any = {
        "nh2st": Nh2stOptions(dim=8, heads=1),
        "bleep": BleepOptions(dim=8),
        "attention": AttentionOptions(embedding=4, hidden=2),
    }[method]
    meta: dict[str, Any] = {"genes": list("ABCD"), "d_image": 5, "options": vars(options)}
    spec = TrainingSetSpec(one, one, ("a",), (), 0.0, ("A", "B", "C", "D"))
    learner = SpotsLearner(method, spec, options, meta, 0, bags={"parts": 3, "labels": "mean_of_logs"})
    setup = learner.setup(table, table, torch.device("cpu"))
    assert setup.score is not None
    score = setup.score(setup.model.eval())
    labels = expression.reshape(3, 4, 4).mean(axis=1) if method == "attention" else expression
    assert score.gene_mean_mse == pytest.approx(labels.var(axis=0).mean(), rel=1e-4)
    assert score.mse > 0


def test_no_epoch_is_chosen_by_genes_that_are_held_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    one = Artifact(StoragePath.of(tmp_path), Manifest(step="spots", name="a", fingerprint="0"))
    genes = ("A", "B", "C", "D")
    squares = np.stack([np.arange(12.0), np.zeros(12), np.ones(12)], axis=1)
    features = rng.normal(size=(12, 5)).astype(np.float32)
    expression = rng.random((12, 4)).astype(np.float32)
    names = tuple(str(number) for number in range(12))
    held = SpotTable(("a",), ("a",), np.zeros(12, np.int64), names, squares, features, expression, np.ones(12))
    other = replace(held, expression=np.concatenate([expression[:, :3], rng.random((12, 1), np.float32)], axis=1))
    meta: dict[str, Any] = {"genes": list(genes), "d_image": 5, "seen": ["A", "B", "C"], "unseen": ["D"]}
    options = GeneQueryOptions(dim=8, depth=1, heads=1, head_dim=8, feedforward=8)
    texts = rng.normal(size=(4, 6)).astype(np.float32)
    recipe = TrainingSetSpec(one, one, ("a",), (), 0.0, genes)
    learner = SpotsLearner("genequery", recipe, options, meta | {"options": vars(options)}, 0, texts=texts)
    found = []
    for validation in (held, other):
        setup = learner.setup(held, validation, torch.device("cpu"))
        assert setup.score is not None
        found.append(setup.score(setup.model.eval()))
    assert found[0] == found[1]
