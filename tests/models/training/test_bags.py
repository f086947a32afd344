"""Bags: the sampled tiles depend on (seed, epoch, bag) alone, and each error names the case."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from raystp.errors import ModelError
from raystp.models.training.bags import BagSamples
from raystp.models.training.samples import SampleSet


def _numbered(sizes: list[int]) -> list[np.ndarray]:
    """Return bags whose tiles hold (bag, tile)."""
    return [
        np.array([[bag, tile] for tile in range(size)], dtype=np.float32).reshape(-1, 2)
        for bag, size in enumerate(sizes)
    ]


def test_a_batch_is_padded_and_masked() -> None:
    samples = BagSamples.of(_numbered([2, 3, 1]), np.array([[0.0], [10.0], [20.0]]))
    assert isinstance(samples, SampleSet)
    features, mask, labels = samples.at(np.array([2, 0]))
    assert features.tolist() == [[[2, 0], [0, 0]], [[0, 0], [0, 1]]]
    assert mask.tolist() == [[1, 0], [1, 1]]
    assert labels.tolist() == [[20.0], [0.0]]
    assert {part.dtype for part in (features, mask, labels)} == {torch.float32}


def test_sample_of_a_large_bag_differs_between_epochs_and_not_with_the_other_bags() -> None:
    epoch = 0
    samples = replace(BagSamples.of(_numbered([50, 3, 50]), np.zeros((3, 1))), bag_tiles=8, epoch=lambda: epoch)

    def tiles(*bags: int) -> list[float]:
        features, mask, _ = samples.at(np.array(bags))
        last = features[-1, mask[-1] > 0, 1]
        return [float(tile) for tile in last]

    first = tiles(0)
    assert len(set(first)) == 8
    assert first == sorted(first) == tiles(2, 1, 0)
    assert tiles(2) != first
    assert tiles(0, 1) == [0, 1, 2]
    epoch = 1
    assert tiles(0) != first
    epoch = 0
    assert tiles(0) == first
    samples = replace(samples, seed=1)
    assert tiles(0) != first


def test_only_the_sampled_tiles_are_read() -> None:
    reads = []

    def read(bag: int, chosen: np.ndarray | None) -> np.ndarray:
        reads.append((bag, None if chosen is None else len(chosen)))
        return np.zeros((1_000_000 if chosen is None else len(chosen), 2), dtype=np.float32)

    samples = BagSamples(read, np.array([1_000_000, 5]), np.zeros((2, 1)), ["a", "b"], bag_tiles=16)
    samples.at(np.array([0]))
    assert reads == [(0, 16)]


def test_sampled_tiles_are_of_all_bags_and_the_same_in_every_epoch() -> None:
    samples = BagSamples.of(_numbered([50, 3]), np.zeros((2, 1)))
    later = replace(samples, epoch=lambda: 5, bag_tiles=7)
    assert len(samples.sample_tiles(10)) == 13
    np.testing.assert_array_equal(later.sample_tiles(10), samples.sample_tiles(10))


def test_errors_name_the_case() -> None:
    with pytest.raises(ModelError, match=r"1 of 2 bags have no tiles \('P2'\)"):
        BagSamples.of(_numbered([2, 0]), np.zeros((2, 1)), ["P1", "P2"])
    with pytest.raises(ModelError, match=r"labels of 1 bags hold nan or infinity \('P1'\)"):
        BagSamples.of(_numbered([2, 2]), np.array([[np.nan], [0.0]]), ["P1", "P2"])
    with pytest.raises(ModelError, match="2 bags, 3 labels and 2 names"):
        BagSamples.of(_numbered([2, 2]), np.zeros((3, 1)))
    with pytest.raises(ModelError, match="bag_tiles must be 1 or more, or None for all tiles, got 0"):
        replace(BagSamples.of(_numbered([2]), np.zeros((1, 1))), bag_tiles=0)
    bags = _numbered([2, 2])
    bags[1][0, 0] = np.nan
    with pytest.raises(ModelError, match="features of 1 of 2 tiles of P2 hold nan"):
        BagSamples.of(bags, np.zeros((2, 1)), ["P1", "P2"]).at(np.array([0, 1]))
