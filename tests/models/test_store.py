"""Models and checkpoints on disk: a round trip changes nothing, and damaged or foreign files are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raystp.errors import ModelError
from raystp.models.arrays import Arrays, encoder_weights
from raystp.models.baselines.gene_mean import fit_gene_mean
from raystp.models.baselines.knn import fit_knn, predict_knn
from raystp.models.baselines.ridge import fit_ridge, predict_ridge
from raystp.models.bleep.model import seeded_bleep
from raystp.models.bleep.options import BleepOptions
from raystp.models.methods import METHODS, open_predictor
from raystp.models.predictor import ContrastivePredictor, DirectPredictor
from raystp.models.store import checkpoint_damage, load_model, load_state, save_model, save_state
from raystp.models.training.fit import TrainState
from raystp.models.training.options import FitOptions
from raystp.models.training.tower import attach_tower
from raystp.storage import StoragePath

META: dict[str, Any] = {"genes": ["A", "B", "C"], "d_image": 4, "encoder": {"name": "tiny", "digest": "00ff"}}


def _spots(rows: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, 4)), rng.normal(size=(rows, 3))


def _saved(tmp_path: Path) -> StoragePath:
    folder = StoragePath.of(tmp_path / "model")
    save_model(folder, "ridge", fit_ridge(*_spots()), META)
    return folder


def test_round_trip_returns_the_same_model(tmp_path: Path) -> None:
    arrays: Arrays = {
        "scalar": np.array(50, dtype=np.int64),
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "strided": np.arange(10, dtype=np.float64)[::2],
    }
    folder = StoragePath.of(tmp_path / "model")
    save_model(folder, "ridge", {**arrays, "tensor": torch.ones(2).requires_grad_()}, META)
    kind, seen, meta = load_model(folder)
    assert (kind, meta) == ("ridge", META)
    assert seen["tensor"].tolist() == [1, 1]
    for name, value in arrays.items():
        np.testing.assert_array_equal(seen[name], value)
        assert (seen[name].dtype, seen[name].shape) == (value.dtype, value.shape)


def test_a_record_has_no_secret_of_a_uri(tmp_path: Path) -> None:
    meta = {**META, "encoder": {"name": "tiny", "weights": "s3://key:canary@bucket/weights.safetensors"}}
    save_model(StoragePath.of(tmp_path), "gene_mean", {}, meta)
    assert "canary" not in (tmp_path / "model.json").read_text()
    assert load_model(StoragePath.of(tmp_path))[2]["encoder"]["weights"] == "s3://bucket/weights.safetensors"


def test_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_model(StoragePath.of(tmp_path / name), "ridge", fit_ridge(*_spots()), META)
    for file in ("model.safetensors", "model.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_altered_model_is_refused(tmp_path: Path) -> None:
    folder = _saved(tmp_path)
    file = folder.local_path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(ModelError, match=r"model.safetensors has sha256 .* model.json states"):
        load_model(folder)


@pytest.mark.parametrize("file", ["model.safetensors", "model.json"])
def test_unfinished_model_is_refused(tmp_path: Path, file: str) -> None:
    folder = _saved(tmp_path)
    (folder.local_path / file).unlink()
    with pytest.raises(ModelError, match=f"has no {file}: it holds no finished model; run `raystp train` first"):
        load_model(folder)


def test_model_of_another_version_is_refused(tmp_path: Path) -> None:
    folder = _saved(tmp_path)
    file = folder.local_path / "model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema_version": 2}))
    with pytest.raises(ModelError, match="is of schema version 2, this raystp reads version 1"):
        load_model(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", "\x00", "3"])
def test_invalid_model_json_is_refused(tmp_path: Path, text: str) -> None:
    folder = _saved(tmp_path)
    (folder.local_path / "model.json").write_text(text)
    with pytest.raises(ModelError, match=r"model.json cannot be read"):
        load_model(folder)


@pytest.mark.parametrize("meta", [{}, {**META, "genes": ["A", "A"]}, {**META, "d_image": 0}])
def test_meta_without_genes_or_feature_length_is_refused(tmp_path: Path, meta: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"`genes` must list each gene once|`d_image` must be the length"):
        save_model(StoragePath.of(tmp_path), "ridge", {}, meta)


def test_round_trip_keeps_the_predictions_of_direct_models(tmp_path: Path) -> None:
    features, expression = _spots()
    fitted = {
        "ridge": (fit_ridge(features, expression), predict_ridge),
        "knn": (fit_knn(features, expression, k=5), predict_knn),
    }
    for kind, (arrays, predict) in fitted.items():
        folder = StoragePath.of(tmp_path / kind)
        save_model(folder, kind, arrays, META)
        model = open_predictor(*load_model(folder))
        assert isinstance(model, DirectPredictor)
        assert (model.kind, model.genes) == (kind, ["A", "B", "C"])
        queries = features[:7].astype(np.float32)
        np.testing.assert_array_equal(model.predict(queries), predict(arrays, queries))


def test_round_trip_keeps_the_embeddings_of_bleep_and_its_image_encoder(tmp_path: Path) -> None:
    options = BleepOptions(dim=8)
    encoder = torch.nn.Linear(6, 4)
    bleep = seeded_bleep(4, 3, options, seed=0).eval()
    attach_tower(bleep, encoder, (0,), FitOptions())
    folder = StoragePath.of(tmp_path / "bleep")
    save_model(folder, "bleep", bleep.state_dict(), {**META, "options": {"dim": 8}})
    kind, arrays, meta = load_model(folder)
    model = open_predictor(kind, arrays, meta)
    assert isinstance(model, ContrastivePredictor)
    pixels, expression = torch.randn(5, 6), torch.randn(5, 3)
    features = encoder(pixels).detach().numpy()
    np.testing.assert_allclose(
        model.embed_images(features), bleep.embed_images(encoder(pixels)).detach().numpy(), atol=1e-6
    )
    np.testing.assert_allclose(model.embed_spots(expression.numpy()), bleep.embed_spots(expression).detach(), atol=1e-6)
    np.testing.assert_array_equal(encoder_weights(arrays)["weight"], encoder.weight.detach())


def test_features_of_another_encoder_and_nan_are_refused() -> None:
    model = open_predictor("gene_mean", fit_gene_mean(_spots()[1]), META)
    assert isinstance(model, DirectPredictor)
    with pytest.raises(ModelError, match="gene_mean model reads 4 image features, got 5"):
        model.predict(np.zeros((2, 5)))
    with pytest.raises(ModelError, match=r"1 of 2 rows of image features .* nan or infinity"):
        model.predict(np.array([[0, 0, 0, 0], [0, np.nan, 0, 0]]))
    assert model.predict(np.zeros((2, 4), dtype=np.float16)).shape == (2, 3)


def test_unknown_method_is_refused_with_a_list_of_the_known_ones() -> None:
    with pytest.raises(
        ModelError,
        match=r"unknown method 'magic'; the methods are attention, bleep, .*gene_mean, genequery, .*knn, .*ridge",
    ):
        open_predictor("magic", {}, META)


def test_arrays_of_another_method_are_refused() -> None:
    for kind in ("attention", "bleep", "genequery", "nh2st"):
        assert kind in METHODS
        with pytest.raises(ModelError, match=f"do not fit method '{kind}'|this {kind} model is of an earlier raystp"):
            open_predictor(kind, fit_gene_mean(_spots()[1]), {**META, "options": {}, "seen": ["A"], "unseen": []})


def _state(width: int = 4) -> TrainState:
    model = seeded_bleep(width, 3, BleepOptions(dim=8), seed=0)
    return TrainState.start(model, model.loss, FitOptions())


def test_checkpoint_of_a_training_before_its_first_epoch_loads(tmp_path: Path) -> None:
    folder = StoragePath.of(tmp_path / "state")
    save_state(folder, _state())
    other = _state()
    load_state(folder, other)
    assert (other.epoch, other.best_epoch, other.best_value, other.best) == (0, None, None, {})
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["state.json", "state.safetensors"]


def test_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = StoragePath.of(tmp_path / "state")
    save_state(folder, _state())
    with pytest.raises(ModelError, match="is of another model"):
        load_state(folder, _state(width=5))


@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
def test_a_checkpoint_that_is_cut_off_is_found_and_a_whole_one_is_not(tmp_path: Path, name: str) -> None:
    folder = StoragePath.of(tmp_path / "state")
    save_state(folder, _state())
    assert not checkpoint_damage(folder)
    file = tmp_path / "state" / name
    file.write_bytes(file.read_bytes()[:-20])
    assert name in checkpoint_damage(folder)
    file.unlink()
    assert f"has no {name}" in checkpoint_damage(folder)
