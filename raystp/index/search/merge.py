"""Merge search results: the best k by (-score, row), whichever search found them.

A result is (scores, rows), best first, one line per query. A missing neighbour has row -1 and score -inf, so a shard
with fewer than k rows also gives k columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

from raystp.errors import ModelError

NO_ROW = -1

_MAX_ROW = (1 << 32) - 1
_NO_KEY = np.uint64((1 << 64) - 1)

SearchResult = tuple[Float32[np.ndarray, "query k"], Int64[np.ndarray, "query k"]]


def empty_result(queries: int, k: int) -> SearchResult:
    """Return a result without any neighbour."""
    return np.full((queries, k), -np.inf, np.float32), np.full((queries, k), NO_ROW, np.int64)


@dataclass(frozen=True, eq=False)
class PartResult:
    """The candidates of some shards, from which the result of all shards is chosen."""

    near: Float32[np.ndarray, "query candidate"]
    """Scores by which the candidates of all shards are chosen: approximate where the lists have codes."""
    scores: Float32[np.ndarray, "query candidate"]
    """Exact scores."""
    rows: Int64[np.ndarray, "query candidate"]
    """Rows of the index; -1 for a missing candidate."""

    def write(self, queries: Int64[np.ndarray, "query"], part: "PartResult") -> None:
        """Replace the candidates of these queries by others, of which there may be fewer."""
        for own, new, missing in (
            (self.near, part.near, -np.inf),
            (self.scores, part.scores, -np.inf),
            (self.rows, part.rows, NO_ROW),
        ):
            own[queries] = missing
            own[queries, : new.shape[1]] = new


def empty_part(queries: int, candidates: int) -> PartResult:
    """Return a part without any candidate."""
    scores, rows = empty_result(queries, candidates)
    return PartResult(scores.copy(), scores, rows)


def part_of(result: SearchResult) -> PartResult:
    """Return a result by exact scores as a part."""
    return PartResult(result[0], *result)


def merge_parts(parts: Sequence[PartResult], wanted: int, k: int) -> SearchResult:
    """Return the best k by (-exact score, row) of the `wanted` candidates with the best (-approximate score, row).

    The order of the parts does not matter, nor how the shards are divided among them.
    """
    if len(parts) == 1:
        return best_of(parts[0].scores, parts[0].rows, k)
    near, rows = merge_top_k([(part.near, part.rows) for part in parts], wanted)
    last, last_row = near[:, -1:], np.where(rows[:, -1:] < 0, _MAX_ROW, rows[:, -1:])
    found = []
    for part in parts:
        chosen = (part.near > last) | ((part.near == last) & (part.rows <= last_row))
        found.append((part.scores, np.where(chosen, part.rows, NO_ROW)))
    return merge_top_k(found, k)


def merge_top_k(parts: Sequence[tuple[np.ndarray, np.ndarray]], k: int) -> SearchResult:
    """Return the best k of all parts for each query, by (-score, row); the order of the parts does not matter.

    The parts may differ in their number of columns. Raises ModelError where there is no part, or where the parts differ
    in their number of queries.
    """
    if not parts or len({len(scores) for scores, _ in parts}) > 1:
        counts = [len(scores) for scores, _ in parts]
        msg = f"only results of the same queries can be merged; the parts have results of {counts or 'no'} queries"
        raise ModelError(msg)
    scores = np.concatenate([part[0] for part in parts], axis=1)
    rows = np.concatenate([part[1] for part in parts], axis=1)
    return best_of(scores, rows, k)


def best_of(scores: np.ndarray, rows: np.ndarray, k: int) -> SearchResult:
    """Return the best k columns of each line by (-score, row); rows below 0 are missing neighbours.

    Score and row are packed into one 64-bit number, which numpy sorts 20 times as fast as two keys.
    """
    best = empty_result(len(scores), k)
    if rows.size and int(rows.max()) >= _MAX_ROW:
        order = np.lexsort((rows, -scores), axis=1)[:, :k]
        best[0][:, : order.shape[1]] = np.take_along_axis(scores, order, axis=1)
        best[1][:, : order.shape[1]] = np.take_along_axis(rows, order, axis=1)
        return best
    bits = (scores + np.float32(0)).view(np.int32)  # 0 and -0 are one score
    rising = (bits ^ ((bits >> 31) | np.int32(-(1 << 31)))).view(np.uint32)
    keys = (~rising).astype(np.uint64) << np.uint64(32) | rows.astype(np.uint64)
    keys[rows < 0] = _NO_KEY
    keys.sort(axis=1)
    keys = keys[:, :k]
    rising = ~(keys >> np.uint64(32)).astype(np.uint32)
    bits = np.where(rising >> np.uint32(31), rising ^ np.uint32(1 << 31), ~rising)
    columns = keys.shape[1]
    missing = keys == _NO_KEY
    best[0][:, :columns] = np.where(missing, -np.inf, bits.view(np.float32))
    best[1][:, :columns] = np.where(missing, NO_ROW, (keys & np.uint64(_MAX_ROW)).astype(np.int64))
    return best


def incomplete(rows: Int64[np.ndarray, "query k"]) -> Bool[np.ndarray, "query"]:
    """Return which queries have missing neighbours: all shards must search these again, exactly."""
    missing: np.ndarray = np.asarray(rows.min(axis=1) < 0)
    return missing


def top_k_of_pairs(
    pairs: tuple[Int64[np.ndarray, "pair"], Int64[np.ndarray, "pair"]],
    scores: Float32[np.ndarray, "pair"],
    *,
    queries: int,
    k: int,
) -> SearchResult:
    """Return the best k of loose (query, row) pairs for each of `queries` queries, by (-score, row)."""
    query, row = pairs
    order = np.lexsort((row, -scores, query))
    query, row, scores = query[order], row[order], scores[order]
    rank = np.arange(len(query)) - np.searchsorted(query, query)  # 0, 1, 2, ... within each query
    kept = rank < k
    best = empty_result(queries, k)
    best[0][query[kept], rank[kept]] = scores[kept]
    best[1][query[kept], rank[kept]] = row[kept]
    return best
