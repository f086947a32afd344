"""Exact search over vectors: the truth for every other search, and what a bank without approximation answers with.

No full query x row matrix is ever held: blocks of rows meet blocks of queries in a float32 matrix product (numpy's
BLAS), a compiled loop keeps a few rows past k for each query, and each kept row's own score (`search.score`) decides.
Where the rows kept end too early to be sure (many equal or nearly equal vectors), that query is answered again with
every row that could matter. Blocks, threads and shards therefore change no bit of an answer.
"""

import functools
import itertools

import numpy as np
from jaxtyping import Bool, Float32, Int64

from raystp.index.search import kernels, score
from raystp.index.search.blas import one_thread_each
from raystp.index.search.merge import SearchResult, best_of, empty_result, merge_top_k, top_k_of_pairs
from raystp.index.search.score import Metric

_QUERIES, _ROWS = 512, 1024
"""A block of products, 2 MB: near what a core's own cache holds, from which the best are then chosen."""
_FEW = 64
"""Queries for which a thread of its own pays."""
_PAST_K = 16
"""Rows kept beyond k, so that those which tie with the k-th, or are within its rounding error, are all there."""
_FIRST = 8192
"""Rows of the first block, which shows what to expect of the others."""
_GROUPS = 256
"""Groups of a first block's products whose maxima bound what is taken up at all: fewer are taken up to be dropped."""
_HELD = 1 << 24
"""Candidates that are held at a time, over all queries."""


def search(
    bank: Float32[np.ndarray, "row joint"],
    queries: Float32[np.ndarray, "query joint"],
    k: int,
    *,
    metric: Metric,
    allowed: Bool[np.ndarray, "row"] | None = None,
) -> tuple[Float32[np.ndarray, "query k"], Int64[np.ndarray, "query k"]]:
    """Return the scores and rows of each query's k nearest rows, best first, equal scores by the lower row.

    `cosine` scores are cosines; `l2` scores are -d^2. Rows where `allowed` is False do not exist for this search.

    Raises:
        ModelError: k exceeds the allowed rows, dimensions differ, or a vector is zero or not finite.
    """
    score.check_dimensions(bank.shape[1], queries.shape[1])
    score.check_k(k, score.count_allowed(allowed, len(bank)), "the reference")
    bank, queries = score.prepare(bank, metric, "reference"), score.prepare(queries, metric, "query")
    return top_k(bank, queries, k, metric=metric, allowed=allowed)


def top_k(
    bank: Float32[np.ndarray, "row joint"],
    queries: Float32[np.ndarray, "query joint"],
    k: int,
    *,
    metric: Metric,
    allowed: Bool[np.ndarray, "row"] | None = None,
) -> SearchResult:
    """Search as `search` does, over vectors that are prepared already; fewer than k rows leave places absent."""
    count = score.count_allowed(allowed, len(bank))
    best = empty_result(len(queries), k)
    if not count:
        return best
    keep = min(k + _PAST_K, count)
    step = max(_QUERIES, _HELD // (2 * keep) // _QUERIES * _QUERIES)
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        near, rows = _candidates(bank, queries[part], keep, metric=metric, allowed=allowed)
        scores, found, unsure = settle(bank, queries[part], (near, rows), k, metric=metric, complete=keep == count)
        if unsure.any():
            scores[unsure], found[unsure] = _carefully(bank, queries[part][unsure], k, metric=metric, allowed=allowed)
        best[0][part], best[1][part] = scores, found
    return best


def settle(
    bank: Float32[np.ndarray, "row joint"],
    queries: Float32[np.ndarray, "query joint"],
    candidates: tuple[Float32[np.ndarray, "query fetched"], Int64[np.ndarray, "query fetched"]],
    k: int,
    *,
    metric: Metric,
    complete: bool,
) -> tuple[Float32[np.ndarray, "query k"], Int64[np.ndarray, "query k"], Bool[np.ndarray, "query"]]:
    """Score candidates that a float32 product found, and return the best k with where these may not be all.

    The candidates of a query are in any order, rows below 0 are nobody; `complete` says that there are no other rows.
    """
    near, rows = candidates
    place = min(k, near.shape[1]) - 1
    ordered = np.sort(-near, axis=1)
    floor = score.safe_floor(queries, -ordered[:, place], metric)
    rows = np.where(near >= floor[:, None], rows, -1)
    found = best_of(score.score_candidates(bank, queries, rows, metric), rows, k)
    full = ordered[:, -1] < np.inf  # an absent place: everything was fetched
    unsure = full & (-ordered[:, -1] >= floor) & (not complete)
    return *found, unsure


def _candidates(
    bank: Float32[np.ndarray, "row joint"],
    queries: Float32[np.ndarray, "query joint"],
    keep: int,
    *,
    metric: Metric,
    allowed: Bool[np.ndarray, "row"] | None,
) -> tuple[Float32[np.ndarray, "query keep"], Int64[np.ndarray, "query keep"]]:
    """Return approximate scores and rows of the best `keep` by these, in no order.

    Each thread takes queries of its own, or where these are few, rows; its products stay in its own core's cache.
    """
    own = functools.partial(_of_one_thread, keep=keep, metric=metric)
    many = kernels.count()
    if many > 1 and len(queries) < _FEW * many and len(bank) >= _ROWS * many:
        cuts = _cuts(len(bank), many)
        parts = one_thread_each(
            [functools.partial(own, bank[a:b], queries, None if allowed is None else allowed[a:b], a) for a, b in cuts]
        )
        near, rows = (np.concatenate(side, axis=1) for side in zip(*parts, strict=True))
        kernels.over(kernels.shorten, len(queries), (near, rows, np.full(len(near), near.shape[1]), keep), size=0)
    else:
        cuts = _cuts(len(queries), min(many, max(1, len(queries) // _FEW)))
        parts = one_thread_each([functools.partial(own, bank, queries[a:b], allowed, 0) for a, b in cuts])
        near, rows = (np.concatenate(side) for side in zip(*parts, strict=True))
    near, rows = np.ascontiguousarray(near[:, :keep]), np.ascontiguousarray(rows[:, :keep])
    if metric == "l2":
        near -= np.einsum("qj,qj->q", queries, queries)[:, None]
    return near, rows


def _cuts(size: int, many: int) -> list[tuple[int, int]]:
    return list(itertools.pairwise(np.linspace(0, size, many + 1).astype(int).tolist()))


def _of_one_thread(
    bank: Float32[np.ndarray, "row joint"],
    queries: Float32[np.ndarray, "query joint"],
    allowed: Bool[np.ndarray, "row"] | None,
    first_row: int,
    *,
    keep: int,
    metric: Metric,
) -> tuple[Float32[np.ndarray, "query kept"], Int64[np.ndarray, "query kept"]]:
    """Return the best `keep` of these rows in the first places, but for |q|^2; rows are counted from `first_row`."""
    near = np.full((len(queries), 2 * keep), -np.inf, np.float32)
    rows = np.full((len(queries), 2 * keep), -1, np.int64)
    count, least = np.zeros(len(queries), np.int64), np.full(len(queries), -np.inf, np.float32)
    scale, groups = np.float32(1 if metric == "cosine" else 2), max(_GROUPS, 4 * keep)
    first_rows = max(_FIRST, 4 * groups)
    products = np.empty(min(_QUERIES, len(queries)) * min(first_rows, len(bank)), np.float32)
    starts = [0, *range(first_rows, len(bank), _ROWS), len(bank)]
    for first, end in itertools.pairwise(starts):
        block, own = bank[first:end], None if allowed is None else allowed[first:end]
        numbers = np.arange(first_row + first, first_row + end)
        if own is not None and not own.all():
            block, numbers = block[own], numbers[own]
        if not len(block):
            continue
        norms = np.einsum("rj,rj->r", block, block) if metric == "l2" else np.zeros(len(block), np.float32)
        for start in range(0, len(queries), _QUERIES):
            part = slice(start, start + _QUERIES)
            asked = queries[part]
            tile = products[: len(asked) * len(block)].reshape(len(asked), len(block))
            np.matmul(asked, block.T, out=tile)
            if first == 0 and len(block) >= 4 * groups:
                kernels.run(kernels.bound_of, len(asked), tile, norms, scale, keep, groups, least[part])
                least[part] = np.nextafter(least[part], np.float32(-np.inf))  # what equals it is taken up
            held = near[part], rows[part], count[part], least[part]
            kernels.run(kernels.select, len(asked), tile, norms, scale, numbers, keep, *held)
    kernels.run(kernels.shorten, len(queries), near, rows, count, keep)
    return near[:, :keep], rows[:, :keep]


def _carefully(
    bank: Float32[np.ndarray, "row joint"],
    queries: Float32[np.ndarray, "query joint"],
    k: int,
    *,
    metric: Metric,
    allowed: Bool[np.ndarray, "row"] | None,
) -> SearchResult:
    """Search with every row that could be among the best k, however many these are."""
    scores, rows = empty_result(len(queries), k)
    for start in range(0, len(queries), _QUERIES):
        part = slice(start, start + _QUERIES)
        best = empty_result(len(queries[part]), k)
        for first in range(0, len(bank), _ROWS):
            block = slice(first, first + _ROWS)
            near = _approximate(bank[block], queries[part], metric)
            if allowed is not None:
                near[:, ~allowed[block]] = -np.inf
            kth = np.maximum(best[0][:, -1], _kth(near, k))
            floor = score.safe_floor(queries[part], kth, metric)
            query, row = np.nonzero((near >= floor[:, None]) & (near > -np.inf))
            found = score.score_pairs(bank[block], queries[part], (query, row), metric)
            best = merge_top_k([best, top_k_of_pairs((query, row + first), found, queries=len(best[0]), k=k)], k)
        scores[part], rows[part] = best
    return scores, rows


def _approximate(
    block: Float32[np.ndarray, "row joint"], queries: Float32[np.ndarray, "query joint"], metric: Metric
) -> Float32[np.ndarray, "query row"]:
    near: np.ndarray = queries @ block.T
    if metric == "l2":
        near *= 2
        near -= np.einsum("rj,rj->r", block, block)
        near -= np.einsum("qj,qj->q", queries, queries)[:, None]
    return near


def _kth(near: Float32[np.ndarray, "query row"], k: int) -> Float32[np.ndarray, "query"]:
    """Return the k-th best score of each line, -inf where there are fewer."""
    if near.shape[1] < k:
        return np.full(len(near), -np.inf, np.float32)
    place = near.shape[1] - k
    return np.partition(near, place, axis=1)[:, place]
