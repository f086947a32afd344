"""A stored NH2ST model answers as the trained one did, in chunks of any size, and refuses what is not its own."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import raystp.models.nh2st.predictor as module
from raystp.errors import ModelError
from raystp.models.nh2st.model import Nh2st, seeded_nh2st
from raystp.models.nh2st.options import Nh2stOptions
from raystp.models.nh2st.predictor import Nh2stPredictor, open_predictor
from raystp.models.store import load_model, save_model
from raystp.storage import StoragePath

GENES = ["A", "B", "C"]
ALONE = Nh2stOptions(dim=16, heads=4)
AROUND = Nh2stOptions(dim=16, heads=4, neighbours_at_inference=True)
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(40, 6)).astype(np.float32)
ROWS = np.concatenate([np.arange(40)[:, None], RNG.integers(0, 40, (40, 4))], axis=1)
MASK = np.concatenate([np.ones((40, 1), dtype=bool), RNG.random((40, 4)) > 0.3], axis=1)


def _stored(at: Path, options: Nh2stOptions) -> tuple[Nh2st, Nh2stPredictor]:
    model = seeded_nh2st(6, 3, options, seed=0).eval()
    model.standardize(FEATURES * 3 + 1)
    meta = {"genes": GENES, "d_image": 6, "options": asdict(options)}
    save_model(StoragePath.of(at), "nh2st", model.state_dict(), meta)
    kind, arrays, meta = load_model(StoragePath.of(at))
    assert kind == "nh2st"
    return model, open_predictor(arrays, meta)


@pytest.mark.parametrize("options", [ALONE, AROUND, Nh2stOptions(form="faithful", dim=16, heads=4, tokens=2)])
def test_stored_model_answers_as_the_trained_one(tmp_path: Path, options: Nh2stOptions) -> None:
    model, stored = _stored(tmp_path, options)
    near = torch.from_numpy(FEATURES[ROWS])
    wanted = model.predict(torch.from_numpy(FEATURES), near, torch.from_numpy(MASK)).detach().numpy()
    assert (stored.kind, stored.genes, stored.d_image) == ("nh2st", GENES, 6)
    out = stored.predict(FEATURES, neighbours=(ROWS, MASK))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, wanted, atol=1e-5)


@pytest.mark.parametrize("options", [ALONE, AROUND])
def test_the_size_of_a_chunk_changes_nothing(
    tmp_path: Path, options: Nh2stOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, stored = _stored(tmp_path, options)
    whole = stored.predict(FEATURES, neighbours=(ROWS, MASK))
    monkeypatch.setattr(module, "_NUMBERS", 150)
    np.testing.assert_allclose(stored.predict(FEATURES, neighbours=(ROWS, MASK)), whole, atol=1e-5)


def test_a_model_that_looks_at_the_patch_alone_needs_no_neighbours_and_reads_none(tmp_path: Path) -> None:
    _, stored = _stored(tmp_path, ALONE)
    assert not stored.needs_neighbours
    np.testing.assert_array_equal(stored.predict(FEATURES), stored.predict(FEATURES, neighbours=(ROWS, MASK)))


def test_no_tiles_give_no_rows(tmp_path: Path) -> None:
    _, stored = _stored(tmp_path, ALONE)
    assert stored.predict(np.empty((0, 6), dtype=np.float32)).shape == (0, 3)


def test_a_model_that_reads_neighbours_says_so_and_refuses_those_that_do_not_fit(tmp_path: Path) -> None:
    _, stored = _stored(tmp_path, AROUND)
    assert stored.needs_neighbours
    with pytest.raises(ModelError, match="give predict the tiles' `neighbours`"):
        stored.predict(FEATURES)
    for neighbours in ((ROWS[:5], MASK[:5]), (ROWS + 1, MASK), (ROWS, MASK[:, :2]), (ROWS, ~MASK)):
        with pytest.raises(ModelError, match="neighbours of 40 tiles are 40 rows"):
            stored.predict(FEATURES, neighbours=neighbours)


def test_features_of_another_encoder_or_with_nan_are_refused(tmp_path: Path) -> None:
    _, stored = _stored(tmp_path, ALONE)
    with pytest.raises(ModelError, match="reads 6 image features, got 5"):
        stored.predict(FEATURES[:, :5])
    damaged = FEATURES.copy()
    damaged[3, 2] = np.nan
    with pytest.raises(ModelError, match="nan or infinity in 1 of 40 rows"):
        stored.predict(damaged)


@pytest.mark.parametrize("change", [{"d_image": 7}, {"options": {"no_such": 1}}, {"genes": ["A"]}])
def test_arrays_of_another_model_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    _stored(tmp_path, ALONE)
    _, arrays, meta = load_model(StoragePath.of(tmp_path))
    with pytest.raises(ModelError, match="not those of a nh2st model"):
        open_predictor(arrays, {**meta, **change})
