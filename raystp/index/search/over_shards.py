"""Search the lists of several shards as if their rows were in one shard.

    lists of each shard -> candidates of all shards, by approximate score -> exact score of each -> best k

Candidates are merged before any is scored, so that a row is scored only if it is a candidate of the whole index. On the
CPU, the shards of `ivf` and `ivfsq` fill one heap per query, one after the other. The candidates are those with the
best (-approximate score, row). FAISS keeps any of the rows with equal scores at the end of a heap; a query with such
rows is searched again with more candidates. Results therefore do not depend on the number of shards.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import faiss
import numpy as np
from jaxtyping import Bool, Float32, Int64

from raystp.index.search import exact, faiss_gpu, faiss_lists, score
from raystp.index.search.faiss_lists import Probes
from raystp.index.search.kinds import CODED, Kind, SearchParams
from raystp.index.search.merge import PartResult, SearchResult, best_of, empty_part, empty_result, merge_top_k, part_of
from raystp.index.search.score import Metric

_SLACK = 16
"""Candidates fetched beyond k from lists of float32 rows."""
_TIES = 4
"""Candidates fetched beyond those wanted, which show whether the last wanted one has equals."""
_MIN_WANTED = 32
"""Candidates wanted at least, before `k_factor`: among the very nearest rows the order of codes means little."""
_MAX_CANDIDATES = 1 << 22
"""Candidates in memory at a time (28 bytes each)."""


@runtime_checkable
class ListedShard(Protocol):
    """A shard whose rows are in lists, or on a GPU."""

    @property
    def first(self) -> int:
        """Its first row in the index."""
        ...

    @property
    def vectors(self) -> Float32[np.ndarray, "row joint"]:
        """Its rows as they are compared."""
        ...

    @property
    def index(self) -> faiss.Index | None:
        """What finds candidates among its rows."""
        ...

    @property
    def on_gpu(self) -> bool:
        """Whether that is on a GPU."""
        ...


@dataclass(frozen=True, eq=False)
class ListSearch:
    """The shards to search, and how."""

    shards: Sequence[ListedShard]
    kind: Kind
    metric: Metric
    params: SearchParams
    allowed: Sequence[Bool[np.ndarray, "row"] | None]
    """Mask over each shard's own rows."""

    @property
    def rows(self) -> int:
        """Rows of the shards."""
        return sum(len(shard.vectors) for shard in self.shards)

    @property
    def coded(self) -> bool:
        """Whether the rows in the lists are codes, so that some more than k candidates are scored exactly."""
        return self.kind in CODED

    @property
    def most(self) -> int:
        """Candidates that can be fetched."""
        on_gpu = any(shard.on_gpu for shard in self.shards)
        return min(self.rows, faiss_gpu.MAX_CANDIDATES) if on_gpu else self.rows


def candidates_wanted(kind: Kind, k: int, params: SearchParams) -> int:
    """Return how many candidates of the whole index are scored exactly; k where every row found has its exact score."""
    return max(k, _MIN_WANTED) * params.k_factor if kind in CODED else k


def search(job: ListSearch, prepared: Float32[np.ndarray, "query joint"], k: int, probes: Probes | None) -> PartResult:
    """Return the candidates of these shards with their exact scores, each query's in no order.

    A query whose candidates may not suffice is searched again with 8 times as many.
    """
    wanted, left = candidates_wanted(job.kind, k, job.params), np.arange(len(prepared))
    part = empty_part(len(prepared), min(wanted, job.rows) if job.coded else k)
    fetched = min(wanted + (_TIES if job.coded else _SLACK), job.rows)
    while len(left) and fetched <= job.most:
        size, again = max(1, _MAX_CANDIDATES // fetched), []
        for block in (left[start : start + size] for start in range(0, len(left), size)):
            own = None if probes is None else (probes[0][block], probes[1][block])
            candidates = _fetch(job, prepared[block], fetched, own)
            settled, unsure = (_settle_codes if job.coded else _settle_rows)(job, prepared[block], candidates, k)
            part.write(block, settled)
            again.append(block[unsure & (candidates[1][:, -1] >= 0) & (fetched < job.rows)])
        left, fetched = np.concatenate(again), min(8 * fetched, job.rows)
    if len(left):  # more than a GPU can select
        part.write(left, _every_row(job, prepared[left], k))
    return part


def _settle_codes(
    job: ListSearch, prepared: np.ndarray, candidates: SearchResult, k: int
) -> tuple[PartResult, Bool[np.ndarray, "query"]]:
    """Keep the candidates wanted; a query is unsure if the next one has the same approximate score as the last."""
    wanted = candidates_wanted(job.kind, k, job.params)
    near, rows = (part[:, :wanted] for part in candidates)
    return PartResult(near, _exact_scores(job, prepared, rows), rows), near[:, -1] == candidates[0][:, -1]


def _settle_rows(
    job: ListSearch, prepared: np.ndarray, candidates: SearchResult, k: int
) -> tuple[PartResult, Bool[np.ndarray, "query"]]:
    """Keep the best k; a query is unsure if a row that was not fetched could be among them."""
    near, rows = candidates
    floor = score.safe_floor(prepared, near[:, min(k, near.shape[1]) - 1], job.metric)
    rows = np.where(near < floor[:, None], -1, rows)
    return part_of(best_of(_exact_scores(job, prepared, rows), rows, k)), near[:, -1] >= floor


def _fetch(job: ListSearch, prepared: np.ndarray, fetched: int, probes: Probes | None) -> SearchResult:
    """Return the best candidates of all shards by (-approximate score, row)."""
    searched = [(shard, own) for shard, own in zip(job.shards, job.allowed, strict=True) if own is None or own.any()]
    if job.kind in {"ivf", "ivfsq"} and probes is not None and not any(shard.on_gpu for shard, _ in searched):
        heap = faiss_lists.CandidateHeap(len(prepared), fetched, job.metric)
        for shard, own in searched:
            heap.add(shard.index, prepared, probes, first=shard.first, allowed=own)
        return best_of(*heap.candidates(), fetched)
    parts = [empty_result(len(prepared), fetched)]
    for shard, own in searched:
        assert shard.index is not None  # otherwise every row is compared
        if shard.on_gpu:
            near, rows = faiss_gpu.find_candidates(shard.index, prepared, fetched, job.params.nprobe)
        else:
            near, rows = faiss_lists.find_candidates(
                shard.index, prepared, fetched, params=job.params, probes=probes, allowed=own
            )
        parts.append((near, np.where(rows >= 0, rows + shard.first, rows)))
    return merge_top_k(parts, fetched)


def _exact_scores(
    job: ListSearch, prepared: np.ndarray, rows: Int64[np.ndarray, "query fetched"]
) -> Float32[np.ndarray, "query fetched"]:
    """Return the exact scores of these rows of the index, -inf for a missing one."""
    scores = np.full(rows.shape, -np.inf, np.float32)
    for shard in job.shards:
        score.score_rows(shard.vectors, prepared, rows, scores, first=shard.first, metric=job.metric)
    return scores


def _every_row(job: ListSearch, prepared: np.ndarray, k: int) -> PartResult:
    """Return the best k of all rows of the shards."""
    parts = [empty_result(len(prepared), k)]
    for shard in job.shards:
        scores, rows = exact.top_k(shard.vectors, prepared, k, metric=job.metric)
        parts.append((scores, np.where(rows >= 0, rows + shard.first, rows)))
    return part_of(merge_top_k(parts, k))
