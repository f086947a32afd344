"""Exact search agrees with brute force in double precision, and orders ties by row."""

from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
import pytest

from raystp.errors import ModelError
from raystp.index.search import exact, score
from raystp.index.search.score import METRICS, Metric


def oracle(reference: Any, queries: Any, k: int, metric: Metric) -> tuple[Any, Any]:
    a, b = reference.astype(np.float64), queries.astype(np.float64)
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
    reference, queries = vectors(300, 16, seed=0), vectors(40, 16, seed=1)
    scores, rows = exact.search(reference, queries, 20, metric=metric)
    true_scores, true_rows = oracle(reference, queries, 20, metric)
    assert np.array_equal(rows, true_rows)
    np.testing.assert_allclose(scores, true_scores, rtol=1e-5, atol=1e-6)


def test_scores_of_a_right_angle_and_a_straight_line() -> None:
    reference = np.array([[2, 0], [0, 3], [-1, 0]], np.float32)
    query = np.array([[5, 0]], np.float32)
    assert [part.tolist() for part in exact.search(reference, query, 3, metric="cosine")] == [[[1, 0, -1]], [[0, 1, 2]]]
    assert [part.tolist() for part in exact.search(reference, query, 3, metric="l2")] == [[[-9, -34, -36]], [[0, 1, 2]]]


@pytest.mark.parametrize("metric", METRICS)
def test_ties_are_ordered_by_row_for_any_block_size(metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = vectors(5, 33, seed=2)[np.random.default_rng(3).integers(0, 5, 200)]  # 5 vectors, 40 copies of each
    queries = vectors(7, 33, seed=4)
    whole = exact.search(reference, queries, 50, metric=metric)
    for line, found in zip(*whole, strict=True):
        assert np.lexsort((found, -line)).tolist() == list(range(50))
        assert len(set(line.tolist())) == 2  # about 40 copies of the nearest, then the next
        copies = np.flatnonzero((reference == reference[found[0]]).all(axis=1)).tolist()
        assert found[: len(copies)].tolist() == copies
    monkeypatch.setattr(exact, "_ROWS", 13)
    monkeypatch.setattr(exact, "_QUERIES", 3)
    for blocked, straight in zip(exact.search(reference, queries, 50, metric=metric), whole, strict=True):
        assert np.array_equal(blocked, straight)


@pytest.mark.parametrize("metric", METRICS)
def test_nearly_equal_vectors_are_ordered_by_their_exact_scores(metric: Metric) -> None:
    near = vectors(1, 64, seed=5) + vectors(500, 64, seed=6) * np.float32(1e-5)  # closer than a matrix product can tell
    queries = near[::100]
    scores, rows = exact.search(near, queries, 30, metric=metric)
    all_rows = np.arange(len(near))
    reference, prepared = score.prepare(near, metric, "reference"), score.prepare(queries, metric, "query")
    for number in range(len(queries)):
        own = score.score_pairs(reference, prepared, (np.full(len(near), number), all_rows), metric)
        order = np.lexsort((all_rows, -own))[:30]
        assert rows[number].tolist() == order.tolist()
        assert scores[number].tolist() == own[order].tolist()


@pytest.mark.parametrize("metric", METRICS)
def test_the_nearest_row_to_each_row_is_itself(metric: Metric) -> None:
    reference = vectors(150, 8, seed=7)
    assert exact.search(reference, reference, 1, metric=metric)[1][:, 0].tolist() == list(range(150))


@pytest.mark.parametrize("metric", METRICS)
def test_a_row_that_is_not_allowed_is_never_found(metric: Metric) -> None:
    reference, queries = vectors(100, 8, seed=8), vectors(10, 8, seed=9)
    allowed = np.arange(100) % 3 == 0
    scores, rows = exact.search(reference, queries, 34, metric=metric, allowed=allowed)
    kept = np.flatnonzero(allowed)
    subset = exact.search(reference[kept], queries, 34, metric=metric)
    assert np.array_equal(rows, kept[subset[1]])
    assert np.array_equal(scores, subset[0])


def test_invalid_searches_are_refused_with_the_reason() -> None:
    reference = vectors(10, 4, seed=0)
    zero, infinite = reference.copy(), reference.copy()
    zero[3], infinite[5, 1] = 0, np.inf
    cases: list[tuple[Any, Any, int, str]] = [
        (reference, reference, 11, r"k = 11 neighbours requested; the reference has 10 rows"),
        (reference, reference, 0, r"k = 0 neighbours requested"),
        (zero, reference, 1, r"1 reference vectors are all zero \(rows '3'\)"),
        (reference, infinite, 1, r"1 query vectors are not finite \(rows '5'\)"),
    ]
    for rows, queries, k, message in cases:
        with pytest.raises(ModelError, match=message):
            exact.search(rows, queries, k, metric="cosine")
    with pytest.raises(ModelError, match="k = 3 neighbours requested; the reference has 2 rows"):
        exact.search(reference, reference, 3, metric="l2", allowed=np.arange(10) < 2)


@pytest.fixture
def _threads() -> Iterator[None]:
    """Restore FAISS's number of threads."""
    before = faiss.omp_get_max_threads()
    yield
    faiss.omp_set_num_threads(before)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("close", [1.0, 1e-5])
def test_any_number_of_threads_and_queries_gives_the_same_bits(metric: Metric, close: float) -> None:
    reference = vectors(1, 40, seed=10) + vectors(3000, 40, seed=11) * np.float32(close)
    queries = reference[:300] + vectors(300, 40, seed=12) * np.float32(close / 2)
    faiss.omp_set_num_threads(1)
    scores, rows = exact.search(reference, queries, 20, metric=metric)
    for threads in (2, 3, 7):
        faiss.omp_set_num_threads(threads)
        for found, truth in zip(exact.search(reference, queries, 20, metric=metric), (scores, rows), strict=True):
            assert np.array_equal(found, truth)
    faiss.omp_set_num_threads(2)
    for first, end in ((0, 1), (1, 20), (20, 300)):  # FAISS searches few queries without BLAS
        part = exact.search(reference, queries[first:end], 20, metric=metric)
        assert np.array_equal(part[0], scores[first:end])
        assert np.array_equal(part[1], rows[first:end])


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("metric", METRICS)
def test_blocks_of_allowed_rows_and_of_queries_do_not_change_the_result(
    metric: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, queries = vectors(500, 24, seed=13), vectors(200, 24, seed=14)
    allowed = np.arange(500) % 7 > 1
    allowed[100:200] = False
    whole = exact.search(reference, queries, 30, metric=metric, allowed=allowed)
    monkeypatch.setattr(exact, "_ALLOWED_ROWS", 64)
    monkeypatch.setattr(exact, "_MAX_CANDIDATES", 36 * 50)
    for threads in (1, 3):
        faiss.omp_set_num_threads(threads)
        for blocked, straight in zip(
            exact.search(reference, queries, 30, metric=metric, allowed=allowed), whole, strict=True
        ):
            assert np.array_equal(blocked, straight)


def test_a_zero_or_infinite_vector_beyond_the_first_block_is_refused_by_row() -> None:
    queries = vectors(1200, 8, seed=16)
    queries[1100], queries[1150, 3] = 0, np.nan
    with pytest.raises(ModelError, match=r"1 query vectors are not finite \(rows '1150'\)"):
        exact.search(vectors(10, 8, seed=17), queries, 1, metric="cosine")


@pytest.mark.parametrize("metric", METRICS)
def test_a_query_with_many_equal_rows_is_searched_again(metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    reference, searched = np.repeat(vectors(20, 16, seed=15), 50, axis=0), []
    again = exact._search_above_floor

    def watched(reference: Any, queries: Any, *arguments: Any, **options: Any) -> Any:
        searched.append(len(queries))
        return again(reference, queries, *arguments, **options)

    monkeypatch.setattr(exact, "_search_above_floor", watched)
    rows = exact.search(reference, reference[::50], 10, metric=metric)[1]
    assert rows.tolist() == [list(range(50 * number, 50 * number + 10)) for number in range(20)]
    assert sum(searched) == 20
