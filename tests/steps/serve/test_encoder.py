"""A service reads pixels as its model's training did: with the same weights, on tiles of the same side."""

from typing import Any

import pytest

from raystp.artifacts import Artifact, resolve
from raystp.errors import ConfigError, EncoderError
from raystp.steps.encoder_source import source_of
from raystp.steps.input_config import EncoderConfig
from raystp.steps.serve.encoder import check_encoder, tile_um_for
from raystp.storage import StoragePath

TINY = EncoderConfig(name="tiny")


def _meta(store: str, **block: Any) -> dict[str, Any]:
    recorded = {"encoder": {"name": "tiny"}, "encoder_identity": source_of(TINY, store).identity, **block}
    blocks = [{"tile": {"side": 112.0, "pixels": 224}, **recorded}]
    return {"encoder": {"name": "tiny"}, "d_image": 128, "trained_tower": False, "features": {"blocks": blocks}}


@pytest.fixture
def model(toy_store: StoragePath) -> Artifact:
    return resolve(toy_store.uri, "train/toy", "train")


def test_the_weights_are_those_of_the_training(toy_store: StoragePath, model: Artifact) -> None:
    check_encoder(TINY, toy_store.uri, model, _meta(toy_store.uri))
    others = EncoderConfig(name="tiny", seed=1)
    with pytest.raises(EncoderError, match="give the weights of the embeddings that it was trained on"):
        check_encoder(others, toy_store.uri, model, _meta(toy_store.uri))


def test_the_side_is_that_of_the_training(toy_store: StoragePath, model: Artifact) -> None:
    meta = _meta(toy_store.uri)
    assert tile_um_for(None, meta, model) == tile_um_for(112.0, meta, model) == 112
    with pytest.raises(ConfigError, match=r"was trained on tiles of 112 um, got 56: remove tile_um, or set 112"):
        tile_um_for(56.0, meta, model)


def test_a_model_of_an_earlier_version_records_no_side(model: Artifact) -> None:
    assert tile_um_for(56.0, {}, model) == 56
    assert tile_um_for(None, {}, model) is None
