"""Exact search over a whole bank: the truth for every other search, and the answer for small references.

No full query x row matrix is ever held: blocks of queries meet blocks of rows, a float32 matrix product finds the
candidates of a block, and each candidate's own score (`raystp.index.score`) decides.
"""

import numpy as np
from jaxtyping import Bool, Float32, Int64

from raystp.index import score
from raystp.index.merge import Answer, absent, merge_top_k, top_of_pairs
from raystp.index.score import Metric

_QUERIES, _ROWS = 256, 16_384  # one block of scores: 16 MB


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
    score.check_joint(bank.shape[1], queries.shape[1])
    score.check_k(k, score.count_allowed(allowed, len(bank)), "a bank")
    bank, queries = score.prepare(bank, metric, "bank"), score.prepare(queries, metric, "query")
    return top_k(bank, queries, k, metric=metric, allowed=allowed)


def top_k(
    bank: Float32[np.ndarray, "row joint"],
    queries: Float32[np.ndarray, "query joint"],
    k: int,
    *,
    metric: Metric,
    allowed: Bool[np.ndarray, "row"] | None = None,
) -> Answer:
    """Search as `search` does, over vectors that are prepared already; fewer than k rows leave places absent."""
    scores, rows = absent(len(queries), k)
    for start in range(0, len(queries), _QUERIES):
        part = slice(start, start + _QUERIES)
        best = absent(len(queries[part]), k)
        for first in range(0, len(bank), _ROWS):
            block = slice(first, first + _ROWS)
            near = _approximate(bank[block], queries[part], metric)
            if allowed is not None:
                near[:, ~allowed[block]] = -np.inf
            kth = np.maximum(best[0][:, -1], _kth(near, k))
            floor = score.safe_floor(queries[part], kth, metric)
            query, row = np.nonzero((near >= floor[:, None]) & (near > -np.inf))
            found = score.scores_of(bank[block], queries[part], (query, row), metric)
            best = merge_top_k([best, top_of_pairs((query, row + first), found, queries=len(best[0]), k=k)], k)
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
