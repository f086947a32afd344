"""Any number of shards gives the results of one."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raystp.errors import ModelError
from raystp.index.expression.shard import in_memory
from raystp.index.reference import shard_ranges, shard_ranges_by_bytes
from raystp.index.search import exact
from raystp.index.search.kinds import SearchParams
from raystp.index.search.merge import NO_ROW, merge_top_k
from raystp.index.search.score import METRICS, Metric, prepare
from raystp.index.shard import IndexShard


def vectors(rows: int, joint: int, seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal((rows, joint), dtype=np.float32)


def shard_of(reference: Any, metric: Metric, first: int = 0) -> IndexShard:
    expression = in_memory(np.zeros((len(reference), 1), np.float32))
    return IndexShard(first, "exact", metric, prepare(reference, metric, "reference"), expression, None)


def search_shard(shard: IndexShard, queries: Any, k: int, allowed: Any = None) -> Any:
    prepared = prepare(queries, shard.metric, "query")
    return shard.search(prepared, k, params=SearchParams(), allowed=allowed)


def by_shards(reference: Any, queries: Any, k: int, *, shards: int, metric: Metric) -> Any:
    parts = [
        search_shard(shard_of(reference[first:end], metric, first), queries, k)
        for first, end in shard_ranges(len(reference), shards)
    ]
    return merge_top_k(parts, k)


def assert_same(left: Any, right: Any) -> None:
    assert np.array_equal(left[1], right[1])
    assert np.array_equal(left[0], right[0])


@given(rows=st.integers(1, 500), shards=st.integers(1, 40))
def test_ranges_are_consecutive_and_differ_by_at_most_one_row(rows: int, shards: int) -> None:
    if shards > rows:
        with pytest.raises(ModelError, match=f"{rows} rows cannot be divided into {shards} shards"):
            shard_ranges(rows, shards)
        return
    ranges = shard_ranges(rows, shards)
    assert [row for first, end in ranges for row in range(first, end)] == list(range(rows))
    sizes = [end - first for first, end in ranges]
    assert len(sizes) == shards
    assert max(sizes) - min(sizes) <= 1 <= min(sizes)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shards", [1, 2, 7])
@pytest.mark.parametrize("k", [1, 5, 60])
def test_shards_agree_with_one(shards: int, k: int, metric: Metric) -> None:
    reference, queries = vectors(400, 24, seed=0), vectors(50, 24, seed=1)
    reference[200:] = reference[np.random.default_rng(2).permutation(200)]  # every vector twice, in different shards
    truth = exact.search(reference, queries, k, metric=metric)
    assert_same(by_shards(reference, queries, k, shards=shards, metric=metric), truth)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shards", [1, 2, 7])
def test_shards_agree_with_one_where_most_vectors_are_equal_or_nearly_so(shards: int, metric: Metric) -> None:
    one = vectors(1, 64, seed=3)
    close = one + vectors(300, 64, seed=4) * np.float32(1e-5)
    reference = np.concatenate([close, np.repeat(one, 300, axis=0), vectors(100, 64, seed=5)])
    reference = reference[np.random.default_rng(6).permutation(len(reference))]
    queries = np.concatenate([one, close[:3], vectors(30, 64, seed=7)])
    truth = exact.search(reference, queries, 40, metric=metric)
    assert_same(by_shards(reference, queries, 40, shards=shards, metric=metric), truth)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), shards=st.integers(1, 6), k=st.integers(1, 30), metric=st.sampled_from(METRICS))
def test_shards_agree_with_one_where_ties_are_frequent(seed: int, shards: int, k: int, metric: Metric) -> None:
    random = np.random.default_rng(seed)
    reference = random.integers(1, 4, (60, 3)).astype(np.float32)
    queries = random.integers(1, 4, (4, 3)).astype(np.float32)
    truth = exact.search(reference, queries, k, metric=metric)
    assert_same(by_shards(reference, queries, k, shards=shards, metric=metric), truth)


def test_far_from_the_origin_distances_keep_their_order() -> None:
    # |a|^2 + |b|^2 - 2ab has no correct digit here: FAISS's candidates are wrong, the result must not be.
    reference, queries = vectors(300, 16, seed=8) + np.float32(1e4), vectors(30, 16, seed=9) + np.float32(1e4)
    true = -((queries[:, None].astype(np.float64) - reference[None]) ** 2).sum(axis=2)
    rows = by_shards(reference, queries, 10, shards=2, metric="l2")[1]
    assert np.array_equal(rows, np.argsort(-true, axis=1, kind="stable")[:, :10])


def test_a_query_has_the_same_result_alone_and_in_a_batch() -> None:
    reference, queries = vectors(500, 32, seed=10), vectors(64, 32, seed=11)
    index = shard_of(reference, "cosine")
    scores, rows = search_shard(index, queries, 9)
    for number in range(len(queries)):
        assert_same(search_shard(index, queries[number : number + 1], 9), (scores[[number]], rows[[number]]))


def test_a_shard_smaller_than_k_has_missing_neighbours_and_merging_fills_them() -> None:
    reference, queries = vectors(10, 4, seed=12), vectors(3, 4, seed=13)
    small = search_shard(shard_of(reference[:2], "l2"), queries, 5)
    assert (small[1][:, 2:] == NO_ROW).all()
    assert np.isneginf(small[0][:, 2:]).all()
    rest = search_shard(shard_of(reference[2:], "l2", 2), queries, 5)
    assert_same(merge_top_k([small, rest], 5), exact.search(reference, queries, 5, metric="l2"))
    assert_same(merge_top_k([rest, small], 5), exact.search(reference, queries, 5, metric="l2"))


def test_a_shard_searches_its_allowed_rows_only() -> None:
    reference, queries = vectors(80, 6, seed=14), vectors(5, 6, seed=15)
    allowed = np.arange(80) >= 30
    found = search_shard(shard_of(reference, "cosine", 1000), queries, 8, allowed)
    truth = exact.search(reference, queries, 8, metric="cosine", allowed=allowed)
    assert_same(found, (truth[0], truth[1] + 1000))
    nothing = search_shard(shard_of(reference, "cosine"), queries, 8, np.zeros(80, bool))
    assert (nothing[1] == NO_ROW).all()


def test_results_of_different_queries_are_not_merged() -> None:
    two, three = (np.zeros((n, 1), np.float32) for n in (2, 3))
    with pytest.raises(
        ModelError, match=r"only results of the same queries can be merged; the parts have results of \[2, 3\]"
    ):
        merge_top_k([(two, two.astype(np.int64)), (three, three.astype(np.int64))], 1)


@given(rows=st.integers(1, 500), row=st.integers(1, 50), most=st.integers(1, 2000))
def test_no_shard_exceeds_its_bytes(rows: int, row: int, most: int) -> None:
    if row > most:
        with pytest.raises(ModelError, match=f"a row has {row:,} bytes, more than the {most:,} of a shard"):
            shard_ranges_by_bytes(rows, row, most)
        return
    ranges = shard_ranges_by_bytes(rows, row, most)
    assert (ranges[0][0], ranges[-1][1]) == (0, rows)
    assert max(end - first for first, end in ranges) * row <= most


def test_missing_neighbours_and_rows_beyond_32_bits_are_merged_correctly() -> None:
    scores = np.array([[0.5, -0.0, 0.0, -1.0]], np.float32)
    for first in (0, 1 << 33):
        rows = np.array([[7, 9, 8, NO_ROW]]) + np.array([first, first, first, 0])
        found = merge_top_k([(scores, rows)], 4)
        assert (found[1] - first).tolist()[0][:3] == [7, 8, 9]  # 0 and -0 are one score
        assert found[1][0, 3] == NO_ROW
        assert found[0][0, :3].tolist() == [0.5, 0, 0]
