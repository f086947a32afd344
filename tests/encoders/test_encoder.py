"""Laws of `encode`, on networks whose rows can be computed by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from raystp.encoders.encoder import Encoder, EncoderSpec, InferenceOptions, encode
from raystp.errors import EncoderError
from raystp.units import TilePixels

SIDE = 8


class MeanColour(nn.Module):
    """The mean of each channel of the network's input."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean((2, 3))


class Pixels(nn.Module):
    """The input itself, as a view of it: a row per tile."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.permute(0, 2, 3, 1).flatten(1)


class Inverse(nn.Module):
    """1 / mean: infinite for a tile whose mean is 0."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return 1 / pixels.mean((2, 3))


def encoder_of(network: nn.Module, dim: int = 3) -> Encoder:
    zero, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return Encoder("toy", network, dim, TilePixels(SIDE), mean=zero, std=one, digest="")


def random_tiles(count: int, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_pixels_are_normalised_by_mean_and_std_of_each_colour() -> None:
    tiles = np.full((1, SIDE, SIDE, 3), (255, 51, 0), dtype=np.uint8)
    encoder = replace(encoder_of(MeanColour()), mean=(0.5, 0.2, 0.25), std=(0.5, 0.1, 0.125))
    np.testing.assert_allclose(encode(encoder, tiles, device="cpu"), [[1.0, 0.0, -2.0]], atol=1e-5)


@pytest.mark.parametrize("batch", [1, 7, 64, None])
def test_every_pixel_keeps_its_position_for_any_batch(batch: int | None) -> None:
    tiles = random_tiles(71)
    rows = encode(encoder_of(Pixels(), dim=3 * SIDE * SIDE), tiles, device="cpu", batch=batch)
    np.testing.assert_allclose(rows, tiles.reshape(71, -1) / 255, atol=1e-6)


def test_no_tiles_give_no_rows() -> None:
    assert encode(encoder_of(MeanColour()), random_tiles(0), device="cpu").shape == (0, 3)


def test_read_only_and_mirrored_tiles_are_accepted() -> None:
    tiles = random_tiles(5)
    rows = encode(encoder_of(MeanColour()), tiles, device="cpu")
    tiles.flags.writeable = False
    np.testing.assert_array_equal(encode(encoder_of(MeanColour()), tiles, device="cpu"), rows)
    np.testing.assert_allclose(encode(encoder_of(MeanColour()), tiles[:, ::-1], device="cpu"), rows, atol=1e-6)


def test_tiles_are_not_changed() -> None:
    tiles = random_tiles(5)
    before = tiles.copy()
    encode(encoder_of(MeanColour()), tiles, device="cpu")
    np.testing.assert_array_equal(tiles, before)


def test_a_network_in_training_mode_is_used_in_eval_mode() -> None:
    encoder = encoder_of(nn.Sequential(MeanColour(), nn.Dropout(0.5)))
    encoder.network.train()
    tiles = random_tiles(9)
    np.testing.assert_allclose(encode(encoder, tiles, device="cpu"), tiles.mean((1, 2)) / 255, atol=1e-5)


def test_a_network_can_still_be_trained_after_encoding() -> None:
    encoder = encoder_of(nn.Sequential(MeanColour(), nn.Linear(3, 2)), dim=2)
    encode(encoder, random_tiles(4), device="cpu")
    encoder.network(torch.rand(4, 3, SIDE, SIDE)).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.network.parameters())


def test_float16_gives_similar_float32_rows_and_keeps_float32_weights() -> None:
    encoder = encoder_of(nn.Sequential(nn.Conv2d(3, 4, 3), MeanColour()), dim=4)
    tiles = random_tiles(6)
    exact = encode(encoder, tiles, device="cpu")
    half = encode(encoder, tiles, device="cpu", precision="float16")
    assert half.dtype == np.float32
    assert 0 < np.abs(half - exact).max() < 5e-3
    np.testing.assert_array_equal(encode(encoder, tiles, device="cpu"), exact)


def test_a_tile_of_another_side_is_refused() -> None:
    with pytest.raises(EncoderError, match="expects RGB tiles of 8 x 8 px, got 9 x 9 x 3"):
        encode(encoder_of(MeanColour()), random_tiles(2, side=9), device="cpu")


def test_nan_and_infinity_are_refused_with_the_number_of_the_first_tile() -> None:
    tiles = random_tiles(5)
    tiles[3] = 0
    with pytest.raises(EncoderError, match=r"for 1 of 5 tiles in float32 \(the first is tile 3"):
        encode(encoder_of(Inverse()), tiles, device="cpu")


def test_rows_of_another_length_than_stated_are_refused() -> None:
    with pytest.raises(EncoderError, match=r"returned \(2, 3\) for 2 tiles, expected \(2, 5\)"):
        encode(encoder_of(MeanColour(), dim=5), random_tiles(2), device="cpu")


class TooMany(nn.Module):
    """One row more than tiles."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(pixels) + 1, 3)


def test_more_rows_than_tiles_are_refused() -> None:
    with pytest.raises(EncoderError, match=r"returned \(3, 3\) for 2 tiles"):
        encode(encoder_of(TooMany()), random_tiles(2), device="cpu")


def test_bfloat16_on_a_cpu_gives_similar_float32_rows() -> None:
    encoder = encoder_of(nn.Sequential(nn.Conv2d(3, 4, 3), MeanColour()), dim=4)
    tiles = random_tiles(6)
    exact, half = (encode(encoder, tiles, device="cpu", precision=p) for p in ("float32", "bfloat16"))
    assert half.dtype == np.float32
    assert 0 < np.abs(half - exact).max() < 2e-2


def test_channels_last_changes_no_row() -> None:
    encoder = encoder_of(nn.Sequential(nn.Conv2d(3, 4, 3), MeanColour()), dim=4)
    tiles = random_tiles(6)
    plain = encode(encoder, tiles, device="cpu")
    np.testing.assert_allclose(
        encode(encoder, tiles, device="cpu", options=InferenceOptions(channels_last=True)), plain, atol=1e-5
    )


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(EncoderError, match="at least one tile, got 0"):
        encode(encoder_of(MeanColour()), random_tiles(2), device="cpu", batch=0)


def test_a_spec_cannot_have_two_sources_or_a_digest_of_random_weights() -> None:
    with pytest.raises(EncoderError, match="both random weights and the file"):
        EncoderSpec("timm:resnet18", weights="a.safetensors", random=True)
    with pytest.raises(EncoderError, match="has random weights and the digest abc"):
        EncoderSpec("timm:resnet18", random=True, sha256="abc")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_rows_of_the_cpu() -> None:
    encoder = encoder_of(nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), MeanColour()), dim=64)
    tiles = random_tiles(71)
    rows = encode(encoder, tiles, device="cpu")
    np.testing.assert_allclose(encode(encoder, tiles, device="cuda", batch=7), rows, atol=1e-5)
