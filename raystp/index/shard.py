"""One open shard of an index: a range of its rows, what finds candidates among them, and their expression.

A search returns the best k rows of the shard by (-score, row id in the index), with row -1 where there are fewer.
Each kind finds candidates by another method; their scores are always those of `search.score`.
"""

from dataclasses import dataclass, replace

import faiss
import numpy as np
from jaxtyping import Bool, Float32

from raystp.errors import ArtifactError
from raystp.index import files
from raystp.index.description import FileRecord, IndexDescription, ShardRecord
from raystp.index.expression.forms import ExpressionRows
from raystp.index.expression.shard import open_expression
from raystp.index.search import exact, faiss_gpu, faiss_lists, score
from raystp.index.search.kinds import LISTED, Kind, SearchParams
from raystp.index.search.merge import SearchResult, empty_result
from raystp.index.search.score import Metric
from raystp.storage import StoragePath

_MIN_FETCHED = 32
"""Candidates fetched at least."""


@dataclass(frozen=True, eq=False)
class IndexShard:
    """Rows of an index, from row `first` on."""

    first: int
    kind: Kind
    metric: Metric
    vectors: Float32[np.ndarray, "row joint"]
    """As they are compared: of length 1 for cosine."""
    expression: ExpressionRows
    index: faiss.Index | None
    """Finds candidates; without one, every row is compared."""
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
        params: SearchParams,
        allowed: Bool[np.ndarray, "row"] | None,
    ) -> SearchResult:
        """Return the best k of a graph's candidates, or of all rows; `allowed` is the mask over the shard's own rows.

        Lists are searched over all shards at once (`search.over_shards`).
        """
        if self.index is None:
            return self.search_exactly(prepared, k, allowed=allowed)
        if allowed is not None and allowed.all():
            allowed = None
        if allowed is not None and not allowed.any():
            return empty_result(len(prepared), k)
        fetched = min(max(k, _MIN_FETCHED) * params.k_factor, len(self.vectors))
        candidates = faiss_lists.find_candidates(
            self.index, prepared, fetched, params=params, probes=None, allowed=allowed
        )
        return self._numbered(score.best_candidates(self.vectors, prepared, candidates, k, metric=self.metric))

    def search_exactly(
        self, prepared: Float32[np.ndarray, "query joint"], k: int, *, allowed: Bool[np.ndarray, "row"] | None = None
    ) -> SearchResult:
        """Return the best k of all rows."""
        return self._numbered(exact.top_k(self.vectors, prepared, k, metric=self.metric, allowed=allowed))

    def _numbered(self, found: SearchResult) -> SearchResult:
        scores, rows = found
        return (scores, np.where(rows >= 0, rows + self.first, rows)) if self.first else found


def open_shard(
    folder: StoragePath, description: IndexDescription, number: int, trained: faiss.Index | None
) -> IndexShard:
    """Open a shard by the index's description; raise ArtifactError for a file that differs from it."""
    record = description["shards"][number]
    first = sum(shard["rows"] for shard in description["shards"][:number])
    if description["version"] == 1:
        return _open_version_1(folder, description, record, first)
    kind, metric = description["kind"], description["metric"]
    vectors = files.map_array(folder, record["vectors"])
    expression = open_expression(folder, record["expression"])
    candidates = record["index"]
    index = None if candidates is None else files.map_index(folder, candidates)
    if index is not None and kind in LISTED:
        faiss_lists.set_quantizer(index, trained)
    shard = IndexShard(first, kind, metric, vectors, expression, index)
    _check_shapes(folder, description, record, shard)
    if candidates is not None and index is not None:
        found = (index.ntotal, index.d, metric_of(index))
        if found != (*vectors.shape, metric):
            file = folder / candidates["file"]
            msg = f"{file} has (rows, dimensions, metric) {found}; {(*vectors.shape, metric)} was described"
            raise ArtifactError(msg)
    return shard


def shard_on_gpu(shard: IndexShard) -> IndexShard:
    """Return the shard with the index of its candidates on the first GPU."""
    vectors, metric = shard.vectors, shard.metric
    index = faiss_gpu.flat_index(vectors, metric) if shard.index is None else faiss_gpu.to_gpu(shard.index)
    return replace(shard, index=index, on_gpu=True)


def metric_of(index: faiss.Index) -> Metric:
    """Return the metric that a FAISS index was built for."""
    return "cosine" if index.metric_type == faiss.METRIC_INNER_PRODUCT else "l2"


def _open_version_1(folder: StoragePath, description: IndexDescription, record: ShardRecord, first: int) -> IndexShard:
    """Open a shard whose vectors are in a flat FAISS index."""
    index = files.map_index(folder, record["vectors"])
    if not isinstance(index, faiss.IndexFlat):
        msg = f"{folder / record['vectors']['file']} is a {type(index).__name__}; version 1 has flat indexes only"
        raise ArtifactError(msg)
    vectors = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d).copy()
    shard = IndexShard(first, "exact", metric_of(index), vectors, open_expression(folder, record["expression"]), None)
    _check_shapes(folder, description, record, shard)
    return shard


def _check_shapes(folder: StoragePath, description: IndexDescription, record: ShardRecord, shard: IndexShard) -> None:
    found = (shard.metric, *shard.vectors.shape, *shard.expression.shape)
    rows = record["rows"]
    expected = (description["metric"], rows, description["joint"], rows, len(description["genes"]))
    if found != expected:
        vectors: FileRecord = record["vectors"]
        msg = f"{folder / vectors['file']} and its expression have (metric, rows, dimensions, rows, genes) {found}; "
        raise ArtifactError(msg + f"{expected} was described")
