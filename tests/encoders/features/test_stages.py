"""Layers and views of an encoder: their length is known before, and batches do not matter."""

import numpy as np
import pytest
import torch
from jaxtyping import Float32, UInt8

from raystp.encoders.encoder import Encoder, EncoderSpec, encode
from raystp.encoders.features.options import FeatureOptions
from raystp.encoders.features.stages import mean_and_deviation, stage_number, with_features
from raystp.encoders.registry import build, features_dim
from raystp.errors import EncoderError

NAMES = ("tiny", "timm:test_resnet", "timm:test_vit")
BOTH = FeatureOptions(("middle", "last"))


def _spec(name: str) -> EncoderSpec:
    return EncoderSpec(name, random=name != "tiny", seed=3)


def _tiles(encoder: Encoder, count: int = 5) -> UInt8[np.ndarray, "tile pixel pixel 3"]:
    return np.random.default_rng(0).integers(0, 256, (count, encoder.tile_px, encoder.tile_px, 3), np.uint8)


def _rows(name: str, options: FeatureOptions, batch: int = 32, turn: int = 0) -> Float32[np.ndarray, "tile dim"]:
    encoder = with_features(build(_spec(name)), options)
    return encode(encoder, np.rot90(_tiles(encoder), turn, (1, 2)), device="cpu", batch=batch)


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_does_not_change_the_others_and_has_the_length_that_was_planned(name: str) -> None:
    own, both = _rows(name, FeatureOptions()), _rows(name, BOTH)
    assert both.shape[1] == features_dim(_spec(name), BOTH)
    np.testing.assert_array_equal(both[:, -own.shape[1] :], own)
    np.testing.assert_array_equal(_rows(name, FeatureOptions(("last", "middle")))[:, : own.shape[1]], own)
    np.testing.assert_array_equal(_rows(name, FeatureOptions(("middle",))), both[:, : -own.shape[1]])


@pytest.mark.parametrize("name", NAMES)
def test_many_batches_are_one(name: str) -> None:
    options = FeatureOptions(("middle", "last"), "rotations")
    np.testing.assert_allclose(_rows(name, options, batch=2), _rows(name, options), atol=1e-5, rtol=1e-5)


def test_a_stage_of_tiny_is_the_mean_and_deviation_that_its_row_has() -> None:
    # The row has 12 moments of colours, then mean and deviation of 10, 16 and 32 filters.
    both = _rows("tiny", BOTH)
    np.testing.assert_allclose(both[:, :32], both[:, 32 + 12 + 20 : 32 + 12 + 52], atol=1e-5)


def test_the_mean_over_views_is_the_same_for_a_turned_or_mirrored_tile() -> None:
    for options in (FeatureOptions(BOTH.layers, "rotations"), FeatureOptions(BOTH.layers, "flips")):
        upright = _rows("timm:test_resnet", options)
        np.testing.assert_allclose(_rows("timm:test_resnet", options, turn=1), upright, atol=1e-5, rtol=1e-4)
    encoder = with_features(build(_spec("tiny")), FeatureOptions(views="flips"))
    tiles = _tiles(encoder)
    mirrored = encode(encoder, tiles[:, :, ::-1], device="cpu")
    np.testing.assert_allclose(mirrored, encode(encoder, tiles, device="cpu"), atol=1e-5)
    assert np.abs(_rows("tiny", FeatureOptions(views="rotations")) - _rows("tiny", FeatureOptions())).max() > 1e-4


def test_maps_and_tokens_are_pooled_alike() -> None:
    maps = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).reshape(2, 3, 4, 4)
    expected = torch.cat([maps.mean((2, 3)), maps.flatten(2).std(2, correction=0)], dim=1)
    tokens = torch.cat([torch.full((2, 1, 3), 99.0), maps.flatten(2).transpose(1, 2)], dim=1)
    for pooled in (
        mean_and_deviation(maps),
        mean_and_deviation(maps.permute(0, 2, 3, 1), channels_last=True),
        mean_and_deviation(tokens, 1),
    ):
        torch.testing.assert_close(pooled, expected)


def test_the_middle_is_the_earlier_of_two_and_an_unknown_stage_is_refused() -> None:
    assert [stage_number("middle", count, "x") for count in (1, 3, 4, 5, 12)] == [0, 1, 1, 2, 5]
    with pytest.raises(EncoderError, match=r"'x' has 4 stages, stage:0 to stage:3; layer 'stage:4' is none of them"):
        stage_number("stage:4", 4, "x")
    with pytest.raises(EncoderError, match="has no stages that raystp knows; layer 'middle'"):
        stage_number("middle", 0, "x")
