"""A query is far from a bank where its nearest row is farther than the bank's own kind ever was."""

import numpy as np
import pytest

from raystp.errors import ModelError
from raystp.impute.distance import calibrate, far_from, nearest_distance


def test_the_nearest_row_itself_is_at_no_distance_in_either_metric() -> None:
    assert nearest_distance(np.array([1, 0.75, 1.0000001], np.float32), "cosine").tolist() == [0, 0.25, 0]
    assert nearest_distance(np.array([-0.0, -4, -9], np.float32), "l2").tolist() == [0, 2, 3]


def test_one_in_a_hundred_of_the_banks_own_kind_counts_as_far() -> None:
    known = np.random.default_rng(0).permutation(10_000).astype(np.float32)
    quantiles = calibrate(known)
    assert list(quantiles) == ["q50", "q95", "q99"]
    assert far_from(known, quantiles).sum() == 100
    assert far_from(known, quantiles, "q50").mean() == 0.5
    assert far_from(np.array([1e9, 0, quantiles["q99"]], np.float32), quantiles).tolist() == [True, False, False]


def test_nothing_can_be_calibrated_by_nothing() -> None:
    with pytest.raises(ModelError, match="no distances to calibrate by"):
        calibrate(np.zeros(0, np.float32))
