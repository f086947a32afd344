"""Laws of the batch: found by doubling, halved where memory is too small, and without effect on the rows."""

import numpy as np
import pytest
import torch
from torch import nn

from raystp.encoders import batches
from raystp.encoders.encoder import Encoder, InferenceOptions, encode
from raystp.errors import EncoderError
from raystp.units import TilePixels

SIDE = 8
CUDA, CPU = torch.device("cuda"), torch.device("cpu")


class Small(nn.Module):
    """The mean of each channel, on a device that holds `limit` tiles."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit, self.sizes = limit, list[int]()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(pixels))
        if len(pixels) > self.limit:
            raise torch.OutOfMemoryError
        return pixels.mean((2, 3))


def encoder_of(network: nn.Module) -> Encoder:
    zero, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return Encoder("toy", network, 3, TilePixels(SIDE), mean=zero, std=one, digest="")


def random_tiles(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("limit", "expected"), [(1, 1), (2, 2), (3, 2), (64, 64), (1000, 512), (10**6, batches.MAX_BATCH)]
)
def test_doubling_stops_at_the_largest_batch_that_fits(limit: int, expected: int) -> None:
    network = Small(limit)
    tried: list[int] = []

    def try_pass(tiles: int) -> None:
        tried.append(tiles)
        if tiles > limit:
            raise torch.OutOfMemoryError

    assert batches.resolve_batch("fit", network, CUDA, precision="float32", try_pass=try_pass) == expected
    first = len(tried)
    assert batches.resolve_batch("fit", network, CUDA, precision="float32", try_pass=try_pass) == expected
    assert len(tried) == first  # not tried again
    batches.resolve_batch("fit", network, CUDA, precision="float16", try_pass=try_pass)
    assert len(tried) == 2 * first  # per precision


def test_a_lower_limit_is_kept() -> None:
    network = Small(10**6)
    batches.resolve_batch("fit", network, CUDA, precision="float32", try_pass=lambda _: None)
    batches.lower_fitted(network, CUDA, "float32", 16)
    batches.lower_fitted(network, CUDA, "float32", 64)
    assert batches.resolve_batch("fit", network, CUDA, precision="float32", try_pass=lambda _: None) == 16


def test_a_cpu_uses_a_fixed_batch() -> None:
    network = Small(10**6)
    encode(encoder_of(network), random_tiles(100), device="cpu", batch="fit")
    assert network.sizes == [batches.CPU_BATCH, 100 - batches.CPU_BATCH]


@pytest.mark.parametrize("batch", [None, "fit", 7, 64])
def test_out_of_memory_halves_the_batch_and_changes_no_row(batch: batches.Batch) -> None:
    tiles = random_tiles(71)
    whole = encode(encoder_of(Small(100)), tiles, device="cpu")
    network = Small(5)
    np.testing.assert_allclose(encode(encoder_of(network), tiles, device="cpu", batch=batch), whole, atol=1e-6)
    assert max(size for size in network.sizes[-10:]) <= 5


def test_a_device_that_is_too_small_for_one_tile_is_reported() -> None:
    with pytest.raises(EncoderError, match="'toy' does not fit into the memory of cpu with a single tile"):
        encode(encoder_of(Small(0)), random_tiles(3), device="cpu")


@pytest.mark.slow  # torch's compiler takes seconds to import
def test_a_compiled_network_gives_the_same_rows_and_gets_one_batch_size() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))
    encoder = Encoder("toy", network, 5, TilePixels(SIDE), mean=(0.5,) * 3, std=(0.5,) * 3, digest="")
    tiles = random_tiles(11)
    plain = encode(encoder, tiles, device="cpu")
    sizes: list[int] = []
    network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    options = InferenceOptions(channels_last=True, compiler="eager")
    for _ in range(2):
        np.testing.assert_allclose(encode(encoder, tiles, device="cpu", batch=4, options=options), plain, atol=1e-5)
    assert set(sizes) == {4}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_with_the_largest_batch_gives_the_rows_of_the_cpu() -> None:
    network = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 3, 3), Small(10**6))
    tiles = random_tiles(71)
    rows = encode(encoder_of(network), tiles, device="cpu")
    options = InferenceOptions(channels_last=True)
    np.testing.assert_allclose(
        encode(encoder_of(network), tiles, device="cuda", batch="fit", options=options), rows, atol=1e-5
    )
    for precision in ("float16", "bfloat16"):
        half = encode(encoder_of(network), tiles, device="cuda", batch="fit", precision=precision, options=options)
        np.testing.assert_allclose(half, rows, atol=2e-2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_call_with_few_tiles_does_not_lower_the_batch_of_a_gpu() -> None:
    network = Small(100)
    for tiles in (random_tiles(3), random_tiles(100)):
        encode(encoder_of(network), tiles, device="cuda", batch="fit")
    assert network.sizes[-2:] == [64, 36]
