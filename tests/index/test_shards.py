"""Many shards answer as one, and no file but the written one is opened."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raystp.errors import ModelError
from raystp.index.cut import cut, cut_by_bytes
from raystp.index.expression.shard import in_memory
from raystp.index.search import exact
from raystp.index.search.kinds import SearchParams
from raystp.index.search.merge import NOBODY, merge_top_k
from raystp.index.search.score import METRICS, Metric, prepare
from raystp.index.shard import IndexShard


def vectors(rows: int, joint: int, seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal((rows, joint), dtype=np.float32)


def shard_of(bank: Any, metric: Metric, first: int = 0) -> IndexShard:
    expression = in_memory(np.zeros((len(bank), 1), np.float32))
    return IndexShard(first, "exact", metric, prepare(bank, metric, "bank"), expression, None)


def search_shard(shard: IndexShard, queries: Any, k: int, allowed: Any = None) -> Any:
    prepared = prepare(queries, shard.metric, "query")
    return shard.search(prepared, k, effort=SearchParams(), probes=None, allowed=allowed)


def by_shards(bank: Any, queries: Any, k: int, *, shards: int, metric: Metric) -> Any:
    parts = [
        search_shard(shard_of(bank[first:end], metric, first), queries, k) for first, end in cut(len(bank), shards)
    ]
    return merge_top_k(parts, k)


def assert_same(left: Any, right: Any) -> None:
    assert np.array_equal(left[1], right[1])
    assert np.array_equal(left[0], right[0])


@given(rows=st.integers(1, 500), shards=st.integers(1, 40))
def test_cuts_follow_each_other_and_differ_by_at_most_one_row(rows: int, shards: int) -> None:
    if shards > rows:
        with pytest.raises(ModelError, match=f"{rows} rows cannot be cut into {shards} shards"):
            cut(rows, shards)
        return
    ranges = cut(rows, shards)
    assert [row for first, end in ranges for row in range(first, end)] == list(range(rows))
    sizes = [end - first for first, end in ranges]
    assert len(sizes) == shards
    assert max(sizes) - min(sizes) <= 1 <= min(sizes)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shards", [1, 2, 7])
@pytest.mark.parametrize("k", [1, 5, 60])
def test_shards_answer_as_one(shards: int, k: int, metric: Metric) -> None:
    bank, queries = vectors(400, 24, seed=0), vectors(50, 24, seed=1)
    bank[200:] = bank[np.random.default_rng(2).permutation(200)]  # every vector twice, in different shards
    truth = exact.search(bank, queries, k, metric=metric)
    assert_same(by_shards(bank, queries, k, shards=shards, metric=metric), truth)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shards", [1, 2, 7])
def test_shards_answer_as_one_where_most_vectors_are_equal_or_nearly_so(shards: int, metric: Metric) -> None:
    one = vectors(1, 64, seed=3)
    close = one + vectors(300, 64, seed=4) * np.float32(1e-5)
    bank = np.concatenate([close, np.repeat(one, 300, axis=0), vectors(100, 64, seed=5)])
    bank = bank[np.random.default_rng(6).permutation(len(bank))]
    queries = np.concatenate([one, close[:3], vectors(30, 64, seed=7)])
    truth = exact.search(bank, queries, 40, metric=metric)
    assert_same(by_shards(bank, queries, 40, shards=shards, metric=metric), truth)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), shards=st.integers(1, 6), k=st.integers(1, 30), metric=st.sampled_from(METRICS))
def test_small_whole_numbers_tie_everywhere_and_shards_still_agree(
    seed: int, shards: int, k: int, metric: Metric
) -> None:
    random = np.random.default_rng(seed)
    bank = random.integers(1, 4, (60, 3)).astype(np.float32)
    queries = random.integers(1, 4, (4, 3)).astype(np.float32)
    truth = exact.search(bank, queries, k, metric=metric)
    assert_same(by_shards(bank, queries, k, shards=shards, metric=metric), truth)


def test_far_from_the_origin_distances_keep_their_order() -> None:
    # |a|^2 + |b|^2 - 2ab has no correct digit left here: FAISS's candidates cannot be trusted, the answer can.
    bank, queries = vectors(300, 16, seed=8) + np.float32(1e4), vectors(30, 16, seed=9) + np.float32(1e4)
    true = -((queries[:, None].astype(np.float64) - bank[None]) ** 2).sum(axis=2)
    rows = by_shards(bank, queries, 10, shards=2, metric="l2")[1]
    assert np.array_equal(rows, np.argsort(-true, axis=1, kind="stable")[:, :10])


def test_one_query_alone_is_answered_as_among_many() -> None:
    bank, queries = vectors(500, 32, seed=10), vectors(64, 32, seed=11)
    index = shard_of(bank, "cosine")
    scores, rows = search_shard(index, queries, 9)
    for number in range(len(queries)):
        assert_same(search_shard(index, queries[number : number + 1], 9), (scores[[number]], rows[[number]]))


def test_a_shard_smaller_than_k_leaves_places_absent_and_merging_fills_them() -> None:
    bank, queries = vectors(10, 4, seed=12), vectors(3, 4, seed=13)
    small = search_shard(shard_of(bank[:2], "l2"), queries, 5)
    assert (small[1][:, 2:] == NOBODY).all()
    assert np.isneginf(small[0][:, 2:]).all()
    rest = search_shard(shard_of(bank[2:], "l2", 2), queries, 5)
    assert_same(merge_top_k([small, rest], 5), exact.search(bank, queries, 5, metric="l2"))
    assert_same(merge_top_k([rest, small], 5), exact.search(bank, queries, 5, metric="l2"))


def test_a_shard_answers_from_its_allowed_rows_alone() -> None:
    bank, queries = vectors(80, 6, seed=14), vectors(5, 6, seed=15)
    allowed = np.arange(80) >= 30
    found = search_shard(shard_of(bank, "cosine", 1000), queries, 8, allowed)
    truth = exact.search(bank, queries, 8, metric="cosine", allowed=allowed)
    assert_same(found, (truth[0], truth[1] + 1000))
    nobody = search_shard(shard_of(bank, "cosine"), queries, 8, np.zeros(80, bool))
    assert (nobody[1] == NOBODY).all()


def test_answers_to_different_queries_are_not_merged() -> None:
    two, three = (np.zeros((n, 1), np.float32) for n in (2, 3))
    with pytest.raises(ModelError, match=r"only answers to the same queries can be merged, these answer \[2, 3\]"):
        merge_top_k([(two, two.astype(np.int64)), (three, three.astype(np.int64))], 1)


@given(rows=st.integers(1, 500), row=st.integers(1, 50), most=st.integers(1, 2000))
def test_no_shard_has_more_bytes_than_asked(rows: int, row: int, most: int) -> None:
    if row > most:
        with pytest.raises(ModelError, match=f"a row of {row} bytes does not fit into a shard of at most"):
            cut_by_bytes(rows, row, most)
        return
    ranges = cut_by_bytes(rows, row, most)
    assert (ranges[0][0], ranges[-1][1]) == (0, rows)
    assert max(end - first for first, end in ranges) * row <= most


def test_a_place_without_a_neighbour_and_a_row_beyond_32_bits_are_merged_alike() -> None:
    scores = np.array([[0.5, -0.0, 0.0, -1.0]], np.float32)
    for first in (0, 1 << 33):
        rows = np.array([[7, 9, 8, NOBODY]]) + np.array([first, first, first, 0])
        found = merge_top_k([(scores, rows)], 4)
        assert (found[1] - first).tolist()[0][:3] == [7, 8, 9]  # 0 and -0 are one score
        assert found[1][0, 3] == NOBODY
        assert found[0][0, :3].tolist() == [0.5, 0, 0]
