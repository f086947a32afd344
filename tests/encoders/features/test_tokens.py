"""Spatial tokens: restated from the network's own output, known before, and those of the tile as it is."""

import numpy as np
import pytest
import torch
from jaxtyping import Float32, UInt8
from torch import nn

from raystp.encoders.encoder import Encoder, EncoderSpec, encode
from raystp.encoders.features.options import OWN_ROW, FeatureOptions
from raystp.encoders.features.stages import with_features
from raystp.encoders.features.tokens import grid_tokens, with_tokens
from raystp.encoders.pools import ClassToken, PooledEncoder
from raystp.encoders.registry import build, tokens_of
from raystp.errors import EncoderError

NAMES = ("tiny", "timm:test_resnet", "timm:test_vit")
SIDE = 3


def _built(name: str) -> Encoder:
    return build(EncoderSpec(name, random=name != "tiny", seed=3))


def _tiles(encoder: Encoder, count: int = 4) -> UInt8[np.ndarray, "tile pixel pixel 3"]:
    return np.random.default_rng(0).integers(0, 256, (count, encoder.tile_px, encoder.tile_px, 3), np.uint8)


def _rows(
    name: str, side: int = SIDE, batch: int = 32, options: FeatureOptions = OWN_ROW
) -> Float32[np.ndarray, "tile dim"]:
    encoder = _built(name)
    with_both = with_tokens(with_features(encoder, options), side, trunk=encoder.network)
    return encode(with_both, _tiles(encoder), device="cpu", batch=batch)


@pytest.mark.parametrize("name", NAMES)
def test_tokens_follow_an_unchanged_row_and_have_the_length_that_was_planned(name: str) -> None:
    encoder = _built(name)
    own, rows = encode(encoder, _tiles(encoder), device="cpu"), _rows(name)
    planned = tokens_of(EncoderSpec(name, random=name != "tiny"), SIDE)
    assert rows.shape == (4, encoder.dim + planned.values)
    assert planned.values == SIDE**2 * planned.channels
    np.testing.assert_array_equal(rows[:, : encoder.dim], own)
    np.testing.assert_allclose(_rows(name, batch=3), rows, atol=1e-5)
    alone = with_tokens(encoder, SIDE, trunk=encoder.network, keep_row=False)
    np.testing.assert_allclose(encode(alone, _tiles(encoder), device="cpu"), rows[:, encoder.dim :], atol=1e-5)


def _restated(maps: np.ndarray, side: int) -> np.ndarray:
    """Average a map (row, column, channel): the place i has rows floor(i n / side) to ceil((i + 1) n / side)."""
    count = len(maps)
    spans = [slice(i * count // side, -(-(i + 1) * count // side)) for i in range(side)]
    return np.stack([maps[row, column].mean(axis=(0, 1)) for row in spans for column in spans])


@pytest.mark.parametrize("name", NAMES[1:])
def test_tokens_are_the_averaged_map_that_the_network_pools(name: str) -> None:
    encoder = _built(name)
    pixels = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 3, 160, 160)).astype(np.float32))
    network = encoder.network.eval()
    with torch.inference_mode():
        output = network.forward_features(pixels).numpy()  # type: ignore[operator]  # of timm
        found = with_tokens(encoder, SIDE, trunk=network, keep_row=False).network(pixels).numpy()
    if output.ndim == 4:
        maps = output.transpose(0, 2, 3, 1)
    else:
        patches = output[:, 1:]  # without the class token
        maps = patches.reshape(2, int(patches.shape[1] ** 0.5), -1, patches.shape[2])
    np.testing.assert_allclose(found.reshape(2, SIDE**2, -1), [_restated(one, SIDE) for one in maps], atol=1e-5)


def test_one_token_of_a_network_that_averages_its_map_is_its_row() -> None:
    encoder = _built("timm:test_resnet")
    rows = _rows("timm:test_resnet", side=1)
    np.testing.assert_allclose(rows[:, encoder.dim :], rows[:, : encoder.dim], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_views_and_layers_leave_the_tokens_as_they_are(name: str) -> None:
    plain, both = _rows(name), _rows(name, options=FeatureOptions(("middle", "last"), "rotations"))
    values = tokens_of(EncoderSpec(name, random=name != "tiny"), SIDE).values
    np.testing.assert_allclose(both[:, -values:], plain[:, -values:], atol=1e-5)


def test_a_pooled_transformer_leaves_out_its_class_token_and_registers() -> None:
    plain = _built("timm:test_vit")
    trunk, half = plain.network, (0.5, 0.5, 0.5)
    encoder = Encoder("pooled", PooledEncoder(trunk, ClassToken()), 64, plain.tile_px, half, half, "")
    rows = encode(with_tokens(encoder, 10, trunk=encoder.network), _tiles(encoder), device="cpu")
    with torch.inference_mode():
        pixels = torch.from_numpy(_tiles(encoder)).permute(0, 3, 1, 2) / 255 * 2 - 1
        tokens = trunk.eval().forward_features(pixels)  # type: ignore[operator]  # of timm
    np.testing.assert_allclose(rows[:, :64], tokens[:, 0], atol=1e-4)
    np.testing.assert_allclose(rows[:, 64:], tokens[:, 1:].flatten(1), atol=1e-4)


def test_a_grid_that_a_network_does_not_have_is_refused() -> None:
    with pytest.raises(EncoderError, match=r"map of 13 x 13 places .* set tokens to 13 or less"):
        tokens_of(EncoderSpec("tiny"), 14)
    encoder = _built("tiny")
    with pytest.raises(EncoderError, match="no stages that raystp knows"):
        with_tokens(encoder, 1, trunk=nn.Linear(2, 2))
    with pytest.raises(EncoderError, match="map of 2 x 5 places"):
        grid_tokens(torch.zeros(1, 1, 2, 5), 3, "flat")
