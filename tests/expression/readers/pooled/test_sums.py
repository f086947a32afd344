"""Sums of sparse parts are those of a dense sum, however the parts are cut, and never silently inexact."""

import numpy as np
import pytest

from raystp.expression.readers.pooled import sums
from raystp.expression.readers.pooled.sums import EXACT, SparseSum


@pytest.mark.parametrize("parts", [1, 2, 7, 100])
@pytest.mark.parametrize("pending", [1, 50, 1 << 23])
def test_parts_add_up_to_the_whole(monkeypatch: pytest.MonkeyPatch, parts: int, pending: int) -> None:
    monkeypatch.setattr(sums, "PENDING", pending)
    random = np.random.default_rng(0)
    squares, features, values = (random.integers(0, most, 1000) for most in (20, 30, 5))
    dense = np.zeros((20, 30))
    np.add.at(dense, (squares, features), values)
    found = SparseSum(20, 30)
    for rows in np.array_split(np.arange(1000), parts):
        found.add(squares[rows], features[rows], values[rows])
    assert found.finish().toarray().tolist() == dense.tolist()


def test_no_part_gives_zeros() -> None:
    assert SparseSum(3, 2).finish().toarray().tolist() == [[0, 0]] * 3


def test_counts_that_float32_does_not_hold_exactly_are_refused() -> None:
    found = SparseSum(1, 1)
    for _ in range(2):
        found.add(np.zeros(1, np.int64), np.zeros(1, np.int64), np.array([EXACT - 1]))
    with pytest.raises(ValueError, match=r"a gene has 3.35544e\+07 counts in a square, and at most 16777216"):
        found.finish()
