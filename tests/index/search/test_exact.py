"""The exact search is the truth: it must agree with arithmetic that anyone can check."""

from typing import Any

import numpy as np
import pytest

from raystp.errors import ModelError
from raystp.index.search import exact, score
from raystp.index.search.score import METRICS, Metric


def oracle(bank: Any, queries: Any, k: int, metric: Metric) -> tuple[Any, Any]:
    a, b = bank.astype(np.float64), queries.astype(np.float64)
    if metric == "cosine":
        a, b = a / np.linalg.norm(a, axis=1)[:, None], b / np.linalg.norm(b, axis=1)[:, None]
        scores = b @ a.T
    else:
        scores = -((b[:, None] - a[None]) ** 2).sum(axis=2)
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, rows, axis=1), rows


def vectors(rows: int, joint: int, seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal((rows, joint), dtype=np.float32)


@pytest.mark.parametrize("metric", METRICS)
def test_agrees_with_brute_force_in_double_precision(metric: Metric) -> None:
    bank, queries = vectors(300, 16, seed=0), vectors(40, 16, seed=1)
    scores, rows = exact.search(bank, queries, 20, metric=metric)
    true_scores, true_rows = oracle(bank, queries, 20, metric)
    assert np.array_equal(rows, true_rows)
    np.testing.assert_allclose(scores, true_scores, rtol=1e-5, atol=1e-6)


def test_a_right_angle_and_a_straight_line_score_as_they_should() -> None:
    bank = np.array([[2, 0], [0, 3], [-1, 0]], np.float32)
    query = np.array([[5, 0]], np.float32)
    assert [part.tolist() for part in exact.search(bank, query, 3, metric="cosine")] == [[[1, 0, -1]], [[0, 1, 2]]]
    assert [part.tolist() for part in exact.search(bank, query, 3, metric="l2")] == [[[-9, -34, -36]], [[0, 1, 2]]]


@pytest.mark.parametrize("metric", METRICS)
def test_ties_go_to_the_lower_row_wherever_the_blocks_end(metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = vectors(5, 33, seed=2)[np.random.default_rng(3).integers(0, 5, 200)]  # 5 vectors, 40 copies of each
    queries = vectors(7, 33, seed=4)
    whole = exact.search(bank, queries, 50, metric=metric)
    for line, found in zip(*whole, strict=True):
        assert np.lexsort((found, -line)).tolist() == list(range(50))
        assert len(set(line.tolist())) == 2  # about 40 copies of the nearest, then the next
        copies = np.flatnonzero((bank == bank[found[0]]).all(axis=1)).tolist()
        assert found[: len(copies)].tolist() == copies
    monkeypatch.setattr(exact, "_ROWS", 13)
    monkeypatch.setattr(exact, "_QUERIES", 3)
    for blocked, straight in zip(exact.search(bank, queries, 50, metric=metric), whole, strict=True):
        assert np.array_equal(blocked, straight)


@pytest.mark.parametrize("metric", METRICS)
def test_nearly_equal_vectors_are_ordered_by_their_true_scores(metric: Metric) -> None:
    near = vectors(1, 64, seed=5) + vectors(500, 64, seed=6) * np.float32(1e-5)  # closer than a matrix product can tell
    queries = near[::100]
    scores, rows = exact.search(near, queries, 30, metric=metric)
    everyone = np.arange(len(near))
    bank, asked = score.prepare(near, metric, "bank"), score.prepare(queries, metric, "query")
    for number in range(len(queries)):
        own = score.scores_of(bank, asked, (np.full(len(near), number), everyone), metric)
        order = np.lexsort((everyone, -own))[:30]
        assert rows[number].tolist() == order.tolist()
        assert scores[number].tolist() == own[order].tolist()


@pytest.mark.parametrize("metric", METRICS)
def test_the_nearest_row_to_each_row_is_itself(metric: Metric) -> None:
    bank = vectors(150, 8, seed=7)
    assert exact.search(bank, bank, 1, metric=metric)[1][:, 0].tolist() == list(range(150))


@pytest.mark.parametrize("metric", METRICS)
def test_a_row_that_is_not_allowed_does_not_exist(metric: Metric) -> None:
    bank, queries = vectors(100, 8, seed=8), vectors(10, 8, seed=9)
    allowed = np.arange(100) % 3 == 0
    scores, rows = exact.search(bank, queries, 34, metric=metric, allowed=allowed)
    kept = np.flatnonzero(allowed)
    alone = exact.search(bank[kept], queries, 34, metric=metric)
    assert np.array_equal(rows, kept[alone[1]])
    assert np.array_equal(scores, alone[0])


def test_what_cannot_be_searched_is_said_in_a_sentence() -> None:
    bank = vectors(10, 4, seed=0)
    zero, infinite = bank.copy(), bank.copy()
    zero[3], infinite[5, 1] = 0, np.inf
    cases: list[tuple[Any, Any, int, str]] = [
        (bank, bank, 11, r"k = 11 neighbours were asked of a bank with 10 rows"),
        (bank, bank, 0, r"k = 0 neighbours"),
        (zero, bank, 1, r"1 bank vectors are all zero \(rows '3'\)"),
        (bank, infinite, 1, r"1 query vectors are not finite \(rows '5'\)"),
    ]
    for rows, queries, k, sentence in cases:
        with pytest.raises(ModelError, match=sentence):
            exact.search(rows, queries, k, metric="cosine")
    with pytest.raises(ModelError, match="k = 3 neighbours were asked of a bank with 2 rows"):
        exact.search(bank, bank, 3, metric="l2", allowed=np.arange(10) < 2)
