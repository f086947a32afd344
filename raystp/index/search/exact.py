"""Exact search: the ground truth for every other search, and the search of an exact index.

FAISS's flat search finds a few more than k candidates per query by float32 matrix products. Each candidate's exact
score (`search.score`) then decides. The k-th approximate score and the error bound of float32 products give a floor:
no row with a lower approximate score can be among the best k. A query whose last candidate is not below its floor (many
equal or nearly equal vectors) is searched again, comparing every row above the floor. Results therefore do not depend
on blocks, threads or shards.
"""

import functools

import faiss
import numpy as np
from jaxtyping import Bool, Float32, Int64

from raystp.index.search import score, threads
from raystp.index.search.merge import SearchResult, empty_result, merge_top_k, top_k_of_pairs
from raystp.index.search.score import Metric

Candidates = tuple[Float32[np.ndarray, "query fetched"], Int64[np.ndarray, "query fetched"]]
"""Approximate scores and rows, best first; -inf and -1 where there are fewer."""

_SLACK = 4
"""Candidates fetched beyond k, so that rows within rounding error of the k-th are among them."""
_QUERIES_PER_THREAD = 64
"""Queries for which a thread of its own pays."""
_MAX_CANDIDATES = 1 << 23
"""Candidates in memory at a time (12 bytes each), over the blocks of all threads."""
_ALLOWED_ROWS = 1 << 14
"""Rows from which the allowed ones are copied at a time (16 MB at 256 dimensions, per thread)."""
_QUERIES, _ROWS = 512, 1024
"""A block of products of the second search (2 MB)."""
_BLAS_FROM = 4096
"""Queries x dimensions from which FAISS uses BLAS: with its own 128,000, 256 queries take 5 times as long."""
_RESERVOIR_FROM = 32
"""k from which FAISS selects with a reservoir rather than a heap; with its own 100, k = 66 takes 5 % longer."""


def search(
    reference: Float32[np.ndarray, "row joint"],
    queries: Float32[np.ndarray, "query joint"],
    k: int,
    *,
    metric: Metric,
    allowed: Bool[np.ndarray, "row"] | None = None,
) -> SearchResult:
    """Return the scores and rows of each query's k nearest rows, best first, equal scores by the lower row.

    `cosine` scores are cosines; `l2` scores are -d^2. Rows where `allowed` is False are ignored.

    Raises:
        ModelError: k exceeds the allowed rows, dimensions differ, or a vector is zero or not finite.
    """
    score.check_dimensions(reference.shape[1], queries.shape[1])
    score.check_k(k, score.count_allowed(allowed, len(reference)), "the reference")
    prepared = score.prepare(reference, metric, "reference"), score.prepare(queries, metric, "query")
    return top_k(*prepared, k, metric=metric, allowed=allowed)


def top_k(
    reference: Float32[np.ndarray, "row joint"],
    queries: Float32[np.ndarray, "query joint"],
    k: int,
    *,
    metric: Metric,
    allowed: Bool[np.ndarray, "row"] | None = None,
) -> SearchResult:
    """Search as `search` does, over prepared vectors; fewer than k rows leave missing neighbours."""
    count = score.count_allowed(allowed, len(reference))
    best = empty_result(len(queries), k)
    if not count:
        return best
    if count == len(reference):
        allowed = None
    fetched = min(k + _SLACK, count)

    def search_block(block: slice) -> None:
        candidates = _candidates(reference, queries[block], fetched, metric=metric, allowed=allowed)
        complete = fetched == count
        scores, rows, unsure = settle(reference, queries[block], candidates, k, metric=metric, complete=complete)
        if unsure.any():
            again = _search_above_floor(reference, queries[block][unsure], k, metric=metric, allowed=allowed)
            scores[unsure], rows[unsure] = again
        best[0][block], best[1][block] = scores, rows

    _set_faiss_thresholds()
    parallel = max(1, min(threads.count(), len(queries) // _QUERIES_PER_THREAD))
    size = max(1, min(-(-len(queries) // parallel), _MAX_CANDIDATES // (threads.count() * fetched)))
    threads.run_each(search_block, [slice(start, start + size) for start in range(0, len(queries), size)])
    return best


def settle(
    reference: Float32[np.ndarray, "row joint"],
    queries: Float32[np.ndarray, "query joint"],
    candidates: Candidates,
    k: int,
    *,
    metric: Metric,
    complete: bool,
) -> tuple[Float32[np.ndarray, "query k"], Int64[np.ndarray, "query k"], Bool[np.ndarray, "query"]]:
    """Return the best k candidates by exact score, and for which queries other rows could be among the best k.

    `candidates` come from float32 products; `complete` states that there are no other rows.
    """
    near, rows = candidates
    floor = score.safe_floor(queries, near[:, min(k, near.shape[1]) - 1], metric)
    scores, found = score.best_candidates(reference, queries, candidates, k, metric=metric, floor=floor)
    unsure = (rows[:, -1] >= 0) & (near[:, -1] >= floor) & (not complete)
    return scores, found, unsure


def _candidates(
    reference: Float32[np.ndarray, "row joint"],
    queries: Float32[np.ndarray, "query joint"],
    fetched: int,
    *,
    metric: Metric,
    allowed: Bool[np.ndarray, "row"] | None,
) -> Candidates:
    if allowed is None:
        return _flat_search(reference, queries, fetched, metric)
    best = empty_result(len(queries), fetched)
    for start in range(0, len(reference), _ALLOWED_ROWS):
        rows = start + np.flatnonzero(allowed[start : start + _ALLOWED_ROWS])
        if len(rows):
            near, found = _flat_search(reference[rows], queries, fetched, metric)
            best = merge_top_k([best, (near, np.where(found >= 0, rows[found], -1))], fetched)
    return best


def _flat_search(
    reference: Float32[np.ndarray, "row joint"], queries: Float32[np.ndarray, "query joint"], k: int, metric: Metric
) -> Candidates:
    """Return each query's best k rows by FAISS's float32 scores."""
    kind = faiss.METRIC_INNER_PRODUCT if metric == "cosine" else faiss.METRIC_L2
    near, rows = faiss.knn(queries, reference, k, kind)
    if metric == "l2":
        np.negative(near, out=near)
    if k > len(reference):
        near[rows < 0] = -np.inf
    return near, rows


@functools.cache
def _set_faiss_thresholds() -> None:
    """Lower two thresholds of FAISS, once per process; they choose between algorithms with equal results."""
    faiss.cvar.distance_compute_blas_threshold = min(_BLAS_FROM, faiss.cvar.distance_compute_blas_threshold)
    faiss.cvar.distance_compute_min_k_reservoir = min(_RESERVOIR_FROM, faiss.cvar.distance_compute_min_k_reservoir)


def _search_above_floor(
    reference: Float32[np.ndarray, "row joint"],
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
        for first in range(0, len(reference), _ROWS):
            block = slice(first, first + _ROWS)
            near = _products(reference[block], queries[part], metric)
            if allowed is not None:
                near[:, ~allowed[block]] = -np.inf
            kth = np.maximum(best[0][:, -1], _kth_best(near, k))
            floor = score.safe_floor(queries[part], kth, metric)
            query, row = np.nonzero((near >= floor[:, None]) & (near > -np.inf))
            exact = score.score_pairs(reference[block], queries[part], (query, row), metric)
            best = merge_top_k([best, top_k_of_pairs((query, row + first), exact, queries=len(best[0]), k=k)], k)
        scores[part], rows[part] = best
    return scores, rows


def _products(
    block: Float32[np.ndarray, "row joint"], queries: Float32[np.ndarray, "query joint"], metric: Metric
) -> Float32[np.ndarray, "query row"]:
    """Return the approximate scores of all pairs."""
    near: np.ndarray = queries @ block.T
    if metric == "l2":
        near *= 2
        near -= np.einsum("rj,rj->r", block, block)
        near -= np.einsum("qj,qj->q", queries, queries)[:, None]
    return near


def _kth_best(near: Float32[np.ndarray, "query row"], k: int) -> Float32[np.ndarray, "query"]:
    """Return the k-th best score of each line, -inf where there are fewer."""
    if near.shape[1] < k:
        return np.full(len(near), -np.inf, np.float32)
    rank = near.shape[1] - k
    return np.partition(near, rank, axis=1)[:, rank]
