"""One opened shard of a bank: a range of its rows, what finds candidates among them, and their expression.

A shard answers with the best k of its own rows by (-score, row id of the bank); a place without a neighbour is absent.
What finds candidates differs by kind; what they score never does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from jaxtyping import Bool, Float32

from raystp.errors import ArtifactError
from raystp.index import files
from raystp.index.expression.shard import ExpressionRows, open_expression
from raystp.index.search import exact, score
from raystp.index.search import faiss_gpu as gpu
from raystp.index.search import faiss_lists as lists
from raystp.index.search.faiss_lists import Candidates, Probes
from raystp.index.search.kinds import LISTED, Kind, SearchParams
from raystp.index.search.merge import Answer, absent, best_of
from raystp.index.search.score import Metric
from raystp.storage import StoragePath

_PAST_K = 16
"""Candidates fetched beyond k from lists of float32 rows."""
_FEWEST = 32
"""A smaller k has as many candidates as this one: the order of codes is worth little among the very nearest."""


@dataclass(frozen=True, eq=False)
class IndexShard:
    """Rows `first` and on of a bank."""

    first: int
    kind: Kind
    metric: Metric
    vectors: Float32[np.ndarray, "row joint"]
    """As they are compared: of length 1 for cosine."""
    expression: ExpressionRows
    index: Any
    """What finds candidates; without one, products with all vectors do."""
    on_gpu: bool = False

    @property
    def end(self) -> int:
        """The first row after this shard's."""
        return self.first + len(self.vectors)

    def search(
        self,
        prepared: Float32[np.ndarray, "query joint"],
        k: int,
        *,
        effort: SearchParams,
        probes: Probes | None,
        allowed: Bool[np.ndarray, "row"] | None,
    ) -> Answer:
        """Return the best k of its rows that were found; `allowed` is the mask over its own rows."""
        if self.index is None or (self.on_gpu and allowed is not None):
            return self.search_exactly(prepared, k, allowed=allowed)
        if allowed is not None and allowed.all():
            allowed = None
        if allowed is not None and not allowed.any():
            return absent(len(prepared), k)
        if self.kind in {"exact", "ivf"}:
            return self._numbered(self._surely(prepared, k, effort=effort, probes=probes, allowed=allowed))
        fetched = min(max(k, _FEWEST) * effort.k_factor, len(self.vectors))
        _, rows = self._ask(prepared, fetched, effort=effort, probes=probes, allowed=allowed)
        return self._numbered(best_of(score.of_candidates(self.vectors, prepared, rows, self.metric), rows, k))

    def search_exactly(
        self, prepared: Float32[np.ndarray, "query joint"], k: int, *, allowed: Bool[np.ndarray, "row"] | None = None
    ) -> Answer:
        """Return the best k of its rows."""
        return self._numbered(exact.top_k(self.vectors, prepared, k, metric=self.metric, allowed=allowed))

    def _surely(
        self,
        prepared: Float32[np.ndarray, "query joint"],
        k: int,
        *,
        effort: SearchParams,
        probes: Probes | None,
        allowed: Bool[np.ndarray, "row"] | None,
    ) -> Answer:
        """Return the best k of all rows in the lists looked into; where candidates end too early, ask for more."""
        best, left = absent(len(prepared), k), np.arange(len(prepared))
        fetched = min(k + _PAST_K, len(self.vectors))
        while len(left):
            some = None if probes is None else (probes[0][left], probes[1][left])
            asked, complete = prepared[left], fetched == len(self.vectors)
            candidates = self._ask(asked, fetched, effort=effort, probes=some, allowed=allowed)
            scores, rows, unsure = exact.settle(
                self.vectors, asked, candidates, k, metric=self.metric, complete=complete
            )
            best[0][left], best[1][left] = scores, rows
            left, fetched = left[unsure], min(8 * fetched, len(self.vectors))
        return best

    def _ask(
        self,
        prepared: Float32[np.ndarray, "query joint"],
        fetched: int,
        *,
        effort: SearchParams,
        probes: Probes | None,
        allowed: Bool[np.ndarray, "row"] | None,
    ) -> Candidates:
        if self.on_gpu and fetched <= gpu.MOST:
            return gpu.ask(self.index, prepared, fetched, effort.nprobe)
        if self.on_gpu and self.kind == "exact":
            return exact.top_k(self.vectors, prepared, fetched, metric=self.metric)
        return lists.ask(self.index, prepared, fetched, effort=effort, probes=probes, allowed=allowed)

    def _numbered(self, answer: Answer) -> Answer:
        return answer[0], np.where(answer[1] >= 0, answer[1] + self.first, answer[1])


def open_shard(place: StoragePath, description: Mapping[str, Any], number: int, trained: Any) -> IndexShard:
    """Open one shard of a described bank; raises ArtifactError for a file that is not the one described."""
    described = description["shards"][number]
    first = sum(one["rows"] for one in description["shards"][:number])
    if description["version"] == 1:
        return _of_version_1(place, description, described, first)
    kind, metric = description["kind"], description["metric"]
    vectors = files.map_array(place, described["vectors"])
    expression = open_expression(place, described["expression"])
    index = None if described["index"] is None else files.map_index(place, described["index"])
    if index is not None and kind in LISTED:
        index.quantizer, index.own_fields = trained.quantizer, False
        index.referenced_objects = [trained]
    shard = IndexShard(first, kind, metric, vectors, expression, index)
    _fits(place / described["vectors"]["file"], description, described, shard)
    if index is not None and (index.ntotal, index.d, metric_of(index)) != (*vectors.shape, metric):
        msg = f"{place / described['index']['file']} is of {(index.ntotal, index.d, metric_of(index))}, "
        raise ArtifactError(msg + f"{(*vectors.shape, metric)} was described")
    return shard


def on_gpu(shard: IndexShard) -> IndexShard:
    """Return the shard with its candidates found on the first GPU."""
    index = gpu.flat(shard.vectors, shard.metric) if shard.index is None else gpu.moved(shard.index)
    return IndexShard(shard.first, shard.kind, shard.metric, shard.vectors, shard.expression, index, on_gpu=True)


def metric_of(index: Any) -> Metric:
    """Return the metric that a FAISS index was built for."""
    return "cosine" if index.metric_type == faiss.METRIC_INNER_PRODUCT else "l2"


def _of_version_1(
    place: StoragePath, description: Mapping[str, Any], described: Mapping[str, Any], first: int
) -> IndexShard:
    """Open a shard whose vectors are in a flat FAISS index."""
    file = place / described["vectors"]["file"]
    index = files.map_index(place, described["vectors"])
    if not isinstance(index, faiss.IndexFlat):
        msg = f"{file} holds a {type(index).__name__}, a bank of version 1 has flat indexes"
        raise ArtifactError(msg)
    vectors = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d).copy()
    shard = IndexShard(first, "exact", metric_of(index), vectors, open_expression(place, described["expression"]), None)
    _fits(file, description, described, shard)
    return shard


def _fits(file: StoragePath, description: Mapping[str, Any], described: Mapping[str, Any], shard: IndexShard) -> None:
    seen = (shard.metric, *shard.vectors.shape, *shard.expression.shape)
    rows = described["rows"]
    wanted = (description["metric"], rows, description["joint"], rows, len(description["genes"]))
    if seen != wanted:
        msg = f"{file} and its expression are {seen}, {wanted} was described"
        raise ArtifactError(msg)
