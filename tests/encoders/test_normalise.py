"""Laws of the fused normalisation: torchvision's values, for any batch, in the memory layout of the tiles."""

import threading
from typing import Any

import numpy as np
import pytest
import torch

from raystp.encoders.card import CLIP, HALF, IMAGENET
from raystp.encoders.families import _torchvision
from raystp.encoders.normalise import COMPILED_AFTER, PixelNormaliser
from raystp.encoders.normalise_loop import compiled_loop

CPU = torch.device("cpu")


def random_tiles(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def normaliser(side: int, capacity: int, colours: Any = IMAGENET) -> PixelNormaliser:
    mean, std = colours
    return PixelNormaliser(mean, std, side=side, capacity=capacity, device=CPU)


def by_hand(tiles: np.ndarray, colours: Any = IMAGENET) -> np.ndarray:
    mean, std = (np.array(values) for values in colours)
    normalised: np.ndarray = (tiles / 255 - mean) / std
    return normalised.transpose(0, 3, 1, 2)


@pytest.mark.slow  # torchvision takes seconds to import
@pytest.mark.parametrize("colours", [IMAGENET, HALF, CLIP])
def test_values_are_those_of_torchvision(colours: Any) -> None:
    _torchvision.make_importable()
    from torchvision.transforms import functional  # noqa: PLC0415 -- importable only now

    tiles = np.concatenate(
        [random_tiles(3, 16), np.zeros((1, 16, 16, 3), np.uint8), np.full((1, 16, 16, 3), 255, np.uint8)]
    )
    expected = torch.stack([functional.normalize(functional.to_tensor(tile), *colours) for tile in tiles])
    np.testing.assert_allclose(normaliser(16, 5, colours)(tiles), expected, atol=1e-6)


@pytest.mark.parametrize("colours", [IMAGENET, HALF, CLIP])
@pytest.mark.parametrize("value", [0, 255])
def test_the_darkest_and_the_brightest_pixels_are_exact(value: int, colours: Any) -> None:
    tiles = np.full((2, 8, 8, 3), value, np.uint8)
    np.testing.assert_allclose(normaliser(8, 2, colours)(tiles), by_hand(tiles, colours), atol=1e-6)


def test_every_grey_value_of_every_colour_is_exact() -> None:
    tiles = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    np.testing.assert_allclose(normaliser(16, 1)(tiles), by_hand(tiles), atol=1e-6)


@pytest.mark.parametrize("capacity", [1, 3, 7, 64])
def test_values_do_not_depend_on_the_batch(capacity: int) -> None:
    tiles, normalise = random_tiles(7, 8), normaliser(8, capacity)
    parts = [normalise(tiles[start : start + capacity]).clone() for start in range(0, 7, capacity)]
    torch.testing.assert_close(torch.cat(parts), normaliser(8, 7)(tiles), rtol=0, atol=0)


def test_the_result_has_the_memory_layout_of_the_tiles() -> None:
    pixels = normaliser(8, 4)(random_tiles(4, 8))
    assert pixels.shape == (4, 3, 8, 8)
    assert pixels.is_contiguous(memory_format=torch.channels_last)


def test_normalisers_of_several_sides_are_independent() -> None:
    for side in (8, 24, 8, 16):
        tiles = random_tiles(3, side)
        np.testing.assert_allclose(normaliser(side, 3)(tiles), by_hand(tiles), atol=1e-6)


def test_threads_do_not_overwrite_each_other() -> None:
    tiles, results = random_tiles(2, 8), {}
    both = threading.Barrier(2)

    def run(brightness: int) -> None:
        pixels = normaliser(8, 2)(tiles // 2 + brightness)
        both.wait(timeout=30)
        results[brightness] = pixels.numpy().copy()

    threads = [threading.Thread(target=run, args=(brightness,)) for brightness in (0, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for brightness, pixels in results.items():
        np.testing.assert_allclose(pixels, by_hand(tiles // 2 + brightness), atol=1e-6)


def test_the_compiled_loop_has_the_bits_of_torch() -> None:
    for colours in (IMAGENET, HALF, CLIP):
        normalise = normaliser(8, 1, colours)
        loop = compiled_loop(normalise._scale, normalise._shift)
        if loop is None:
            pytest.skip("torch and numba differ by rounding on this processor: torch's loop is used")
        lines = np.random.default_rng(1).integers(0, 256, (99, 24), dtype=np.uint8)
        found = np.empty((99, 24), np.float32)
        loop(lines, normalise._scale.numpy(), normalise._shift.numpy(), found)
        expected = torch.addcmul(normalise._shift, torch.from_numpy(lines), normalise._scale)
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=0)


def test_no_value_changes_once_the_compiled_loop_is_used() -> None:
    tiles, normalise = random_tiles(COMPILED_AFTER // 4, 8), normaliser(8, COMPILED_AFTER)
    results = [normalise(tiles).clone() for _ in range(6)]
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=0, atol=0)


def test_the_compiled_loop_reads_the_arrays_of_ray_and_slices() -> None:
    normalise = normaliser(8, COMPILED_AFTER)
    normalise(random_tiles(COMPILED_AFTER, 8))
    tiles = random_tiles(6, 8)
    tiles.flags.writeable = False
    for part in (tiles, tiles[:0], tiles[::2], tiles[::-1]):
        np.testing.assert_allclose(normalise(part), by_hand(part), atol=1e-6)
