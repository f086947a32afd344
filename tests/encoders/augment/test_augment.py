"""Augmented tiles: white stays white, strength 0 changes nothing, and a tile's change is its own."""

from dataclasses import replace

import numpy as np
import pytest

from raystp.encoders.augment.options import Augmentation, Stain
from raystp.encoders.augment.stain import (
    REFERENCE_COLOURS,
    hed_colours,
    macenko_colours,
    with_amounts,
)
from raystp.encoders.augment.tiles import TileChange, augment_tiles, changed_tile

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
STILL = Augmentation(flips=False, rotations=False)
STAINS: tuple[Stain, ...] = ("hed", "macenko")
UNIT = REFERENCE_COLOURS / np.linalg.norm(REFERENCE_COLOURS, axis=1, keepdims=True)


def _stained(amounts: np.ndarray, colours: np.ndarray = UNIT) -> np.ndarray:
    """Return a tile that is a row of pixels with these amounts of each stain (Beer-Lambert)."""
    values = 256 * 10 ** -(amounts @ colours) - 1
    tile: np.ndarray = np.rint(values.clip(0, 255)).astype(np.uint8)[None]
    return tile


@pytest.mark.parametrize("stain", STAINS)
def test_a_strength_of_zero_changes_no_pixel(stain: Stain) -> None:
    every_value = np.stack(np.broadcast_arrays(*np.ix_(range(256), range(256), [0, 1, 127, 254, 255])), -1)
    tile = every_value.reshape(256, -1, 3).astype(np.uint8)
    options = replace(STILL, stain=stain, stain_strength=0.0)
    np.testing.assert_array_equal(changed_tile(tile, options, TileChange.drawn(0, 0, 0)), tile)


@pytest.mark.parametrize("stain", STAINS)
def test_white_stays_white_and_stained_pixels_change(stain: Stain) -> None:
    tile = _stained(np.abs(np.random.default_rng(1).normal(size=(500, 2))))
    tile[0, :50] = 255
    found = changed_tile(tile, replace(STILL, stain=stain, stain_strength=0.5), TileChange.drawn(0, 0, 0))
    assert (found[0, :50] == 255).all()
    assert (found[0, 50:] != tile[0, 50:]).any(axis=1).mean() > 0.9


def test_twice_the_haematoxylin_is_twice_its_density_and_eosin_stays() -> None:
    colours = hed_colours()
    amounts = np.random.default_rng(2).uniform(0, 0.5, (200, 3))
    tile, wanted = _stained(amounts, colours), _stained(amounts * [2, 1, 1], colours)
    found = with_amounts(tile, colours, np.array([2.0, 1.0, 1.0]))
    assert np.abs(found.astype(int) - wanted).max() <= 2  # the first tile is rounded to whole values


def test_the_two_stains_of_a_tile_are_found_haematoxylin_first() -> None:
    rng = np.random.default_rng(3)
    other = np.array([[0.7, 0.6, 0.38], [0.3, 0.9, 0.32]])
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    pure = np.concatenate([np.eye(2)[rng.integers(2, size=2000)] * rng.uniform(0.6, 1.2, (2000, 1))])
    for colours in (UNIT, other):
        found = macenko_colours(_stained(pure, colours))
        np.testing.assert_allclose(found, colours, atol=0.03)


@pytest.mark.parametrize("tile", [np.full((64, 64, 3), 250, np.uint8), np.full((64, 64, 3), 90, np.uint8)])
def test_a_tile_of_glass_or_of_one_colour_has_the_reference_colours(tile: np.ndarray) -> None:
    np.testing.assert_allclose(macenko_colours(tile), UNIT)


@pytest.mark.parametrize("stain", ["none", *STAINS])
def test_a_tile_is_changed_alike_in_any_batch_and_differently_in_each_epoch_row_and_seed(stain: Stain) -> None:
    options, rows = Augmentation(stain=stain, stain_strength=0.2), np.random.default_rng(1).permutation(40)
    whole = augment_tiles(PIXELS[rows], rows, options, seed=3, epoch=2)
    parts = [augment_tiles(PIXELS[part], part, options, seed=3, epoch=2) for part in np.array_split(rows, 7)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    for seed, epoch, number in ((4, 2, rows), (3, 1, rows), (3, 2, rows[::-1].copy())):
        other = augment_tiles(PIXELS[rows], number, options, seed=seed, epoch=epoch)
        assert (other != whole).any(axis=(1, 2, 3)).mean() > 0.5


def test_a_tile_is_one_of_its_eight_turns_and_reflections_and_each_of_them_comes() -> None:
    seen = set()
    for tile, found in zip(PIXELS, augment_tiles(PIXELS, np.arange(40), Augmentation(), seed=0, epoch=0), strict=True):
        ways = [np.rot90(tile[:, ::-1] if flip else tile, turn) for turn in range(4) for flip in (0, 1)]
        (way,) = [number for number, one in enumerate(ways) if np.array_equal(one, found)]
        seen.add(way)
    assert len(seen) == 8


def test_only_what_is_asked_for_is_changed() -> None:
    rows = np.arange(40)
    np.testing.assert_array_equal(augment_tiles(PIXELS, rows, STILL, seed=0, epoch=0), PIXELS)
    turned = augment_tiles(PIXELS, rows, replace(STILL, rotations=True), seed=0, epoch=0)
    for tile, found in zip(PIXELS, turned, strict=True):
        assert any(np.array_equal(np.rot90(tile, turn), found) for turn in range(4))


def test_a_strength_that_could_remove_a_stain_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stain_strength must be from 0 to below 1, got 1\.0"):
        Augmentation(stain="hed", stain_strength=1.0)
