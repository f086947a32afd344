"""A stored NH2ST model predicts as the trained one, in chunks of any size, and refuses unfit inputs."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import raystp.models.nh2st.predictor as predictor_module
from raystp.errors import ModelError
from raystp.models.methods import open_predictor
from raystp.models.nh2st.model import Nh2st, seeded_nh2st
from raystp.models.nh2st.options import Nh2stOptions
from raystp.models.nh2st.predictor import Nh2stPredictor
from raystp.models.store import load_model, save_model
from raystp.storage import StoragePath

GENES = ["A", "B", "C"]
ALONE = Nh2stOptions(dim=16, heads=4)
AROUND = Nh2stOptions(dim=16, heads=4, neighbours_at_inference=True)
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(40, 6)).astype(np.float32)
ROWS = np.concatenate([np.arange(40)[:, None], RNG.integers(0, 40, (40, 4))], axis=1)
MASK = np.concatenate([np.ones((40, 1), dtype=bool), RNG.random((40, 4)) > 0.3], axis=1)


def _stored(folder: Path, options: Nh2stOptions) -> tuple[Nh2st, Nh2stPredictor]:
    model = seeded_nh2st(6, 3, options, seed=0).eval()
    model.standardize(FEATURES * 3 + 1)
    written = {"genes": GENES, "d_image": 6, "options": asdict(options)}
    save_model(StoragePath.of(folder), "nh2st", model.state_dict(), written)
    kind, arrays, meta = load_model(StoragePath.of(folder))
    stored = open_predictor(kind, arrays, meta)
    assert isinstance(stored, Nh2stPredictor)
    return model, stored


@pytest.mark.parametrize("options", [ALONE, AROUND, Nh2stOptions(form="faithful", dim=16, heads=4, tokens=2)])
def test_stored_model_predicts_as_the_trained_one(tmp_path: Path, options: Nh2stOptions) -> None:
    model, stored = _stored(tmp_path, options)
    near = torch.from_numpy(FEATURES[ROWS])
    expected = model.predict(torch.from_numpy(FEATURES), near, torch.from_numpy(MASK)).detach().numpy()
    assert (stored.kind, stored.genes, stored.d_image) == ("nh2st", GENES, 6)
    out = stored.predict(FEATURES, neighbours=(ROWS, MASK))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_a_model_without_a_mean_of_its_labels_is_refused_as_one_of_an_earlier_version(tmp_path: Path) -> None:
    model, _ = _stored(tmp_path, ALONE)
    arrays = {name: value.numpy() for name, value in model.state_dict().items() if name != "label_mean"}
    with pytest.raises(ModelError, match="of an earlier raystp, which recorded no `label_mean`: run `raystp train`"):
        open_predictor("nh2st", arrays, {"genes": GENES, "d_image": 6, "options": {}})


@pytest.mark.parametrize("options", [ALONE, AROUND])
def test_chunk_size_changes_no_prediction(
    tmp_path: Path, options: Nh2stOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, stored = _stored(tmp_path, options)
    whole = stored.predict(FEATURES, neighbours=(ROWS, MASK))
    monkeypatch.setattr(predictor_module, "_VALUES_AT_ONCE", 150)
    np.testing.assert_allclose(stored.predict(FEATURES, neighbours=(ROWS, MASK)), whole, atol=1e-5)


def test_a_model_of_the_patch_alone_ignores_neighbours(tmp_path: Path) -> None:
    _, stored = _stored(tmp_path, ALONE)
    assert not stored.needs_neighbours
    np.testing.assert_array_equal(stored.predict(FEATURES), stored.predict(FEATURES, neighbours=(ROWS, MASK)))


def test_no_tiles_give_no_rows(tmp_path: Path) -> None:
    _, stored = _stored(tmp_path, ALONE)
    assert stored.predict(np.empty((0, 6), dtype=np.float32)).shape == (0, 3)


def test_a_model_that_needs_neighbours_refuses_unfit_ones(tmp_path: Path) -> None:
    _, stored = _stored(tmp_path, AROUND)
    assert stored.needs_neighbours
    with pytest.raises(ModelError, match="pass the tiles' `neighbours`"):
        stored.predict(FEATURES)
    for neighbours in ((ROWS[:5], MASK[:5]), (ROWS + 1, MASK), (ROWS, MASK[:, :2]), (ROWS, ~MASK)):
        with pytest.raises(ModelError, match="neighbours of 40 tiles must be 40 rows"):
            stored.predict(FEATURES, neighbours=neighbours)


def test_features_of_another_encoder_or_with_nan_are_refused(tmp_path: Path) -> None:
    _, stored = _stored(tmp_path, ALONE)
    with pytest.raises(ModelError, match="reads 6 image features, got 5"):
        stored.predict(FEATURES[:, :5])
    damaged = FEATURES.copy()
    damaged[3, 2] = np.nan
    with pytest.raises(ModelError, match="1 of 40 rows of image features for the nh2st model hold nan"):
        stored.predict(damaged)


@pytest.mark.parametrize("change", [{"d_image": 7}, {"options": {"no_such": 1}}, {"genes": ["A"]}])
def test_arrays_of_another_model_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    _stored(tmp_path, ALONE)
    _, arrays, meta = load_model(StoragePath.of(tmp_path))
    with pytest.raises(ModelError, match="do not fit method 'nh2st'"):
        open_predictor("nh2st", arrays, {**meta, **change})
