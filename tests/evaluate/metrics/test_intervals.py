import numpy as np
import pytest

from raystp.evaluate.metrics.intervals import SPOTS_PER_BLOCK, blocks, draw_sections, interval, interval_kind, resample
from raystp.evaluate.metrics.sums import scores_of_draws, sums

SET = [np.arange(3)]


def lattice(columns: int, rows: int, pitch: float = 100.0) -> np.ndarray:
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    return np.stack([x.ravel(), y.ravel()], axis=1) * pitch + 5000.0


def test_blocks_are_contiguous_squares() -> None:
    xy = lattice(20, 20)
    label = blocks(xy, 16)
    assert sorted(np.bincount(label).tolist()) == [25] * 16
    for at in range(16):
        assert np.ptp(xy[label == at], axis=0).tolist() == [400.0, 400.0]


@pytest.mark.parametrize("shape", [(30, 10), (3, 100), (50, 50), (7, 9)])
def test_the_number_of_blocks_is_close_to_the_requested_one_and_has_no_gaps(shape: tuple[int, int]) -> None:
    label = blocks(lattice(*shape), 20)
    wanted = min(20, shape[0] * shape[1] // SPOTS_PER_BLOCK)
    assert np.unique(label).tolist() == list(range(label.max() + 1))
    assert abs(label.max() + 1 - wanted) <= 0.25 * wanted


@pytest.mark.parametrize("xy", [np.array([[3.0, 4.0]]), np.full((50, 2), 7.0)])
def test_spots_at_one_position_are_one_block(xy: np.ndarray) -> None:
    assert set(blocks(xy).tolist()) == {0}


def test_each_stratum_is_drawn_as_often_as_it_has_blocks() -> None:
    counts = resample([4, 7], 30, np.random.default_rng(0))
    assert set(counts[:, :4].sum(axis=1).tolist()) == {4.0}
    assert set(counts[:, 4:].sum(axis=1).tolist()) == {7.0}
    np.testing.assert_array_equal(counts, resample([4, 7], 30, np.random.default_rng(0)))


def test_the_number_of_patients_and_sections_decides_what_is_resampled() -> None:
    assert interval_kind(["p", "q", "r"]) == "over patients"
    assert interval_kind(["p", "p", "q"]) == "over sections"
    assert interval_kind(["p", "q"]) == "within section"
    assert draw_sections(["p", "q"], 10, np.random.default_rng(0)) is None


def test_sections_of_a_patient_are_drawn_together() -> None:
    drawn = draw_sections(["p", "q", "p", "r"], 50, np.random.default_rng(0))
    assert drawn is not None
    np.testing.assert_array_equal(drawn[:, 0], drawn[:, 2])
    assert set(drawn[:, [0, 1, 3]].sum(axis=1).tolist()) == {3.0}


def width(block: np.ndarray, predicted: np.ndarray, measured: np.ndarray) -> float:
    part = sums(predicted, measured, block=block, centre=np.zeros(3), sets=SET)
    counts = resample([int(block.max()) + 1], 400, np.random.default_rng(0))
    low, high = interval(scores_of_draws(part, counts, SET).values[:, 0, 0])
    return high - low


def test_blocks_give_a_wider_interval_than_spots_if_neighbours_are_correlated() -> None:
    xy, rng = lattice(20, 20), np.random.default_rng(1)
    patches = rng.normal(size=(2, 16, 3))[:, blocks(xy, 16)]  # constant within 5 x 5 spots
    noise = rng.normal(size=(2, 400, 3))
    spots = np.arange(400)
    smooth = [patches[side] + 0.1 * noise[side] for side in (0, 1)]
    assert width(blocks(xy, 16), *smooth) > 2.5 * width(spots, *smooth)
    assert width(blocks(xy, 16), *noise) == pytest.approx(width(spots, *noise), rel=0.4)
