"""FAISS indexes of the approximate kinds: trained once, filled per shard, searched for candidates.

All shards of an index share one trained FAISS index without rows (`quantizer.faiss`): its centroids and codes. A
shard's file has only its lists, so a query probes the same lists for any number of shards. The lists nearest to a query
are chosen by the exact scores of the centroids, so the choice does not depend on the other queries of a batch.
"""

from typing import Any

import faiss as _faiss
import numpy as np
from jaxtyping import Bool, Float32, Int64

from raystp.index.search.exact import Candidates
from raystp.index.search.kinds import LISTED, Kind, SearchParams
from raystp.index.search.score import Metric

faiss: Any = _faiss
"""FAISS's own types lack what its Python layer adds."""

Probes = tuple[Float32[np.ndarray, "query probe"], Int64[np.ndarray, "query probe"]]
"""Scores and numbers of the lists that each query probes."""

PER_LIST = 64
"""Rows of the sample on which a centroid is trained."""

_LINKS, _EF_CONSTRUCTION = 32, 80
"""Of a graph: links per row, and the size of the candidate queue while rows are added."""
_KMEANS_ITERATIONS = 10
_MARK = 1 << 40
"""Added to a row's number in the index, so that it differs from a row's number in the shard being searched."""


def train(
    prepared: Float32[np.ndarray, "row joint"], kind: Kind, lists: int, *, metric: Metric, seed: int
) -> _faiss.Index:
    """Return an index without rows, trained on a sample of the vectors."""
    joint = prepared.shape[1]
    codes = {"ivf": "Flat", "ivfsq": "SQfp16", "ivfpq": f"PQ{_subvectors(joint)}x4fs"}[kind]
    index = faiss.index_factory(joint, f"IVF{lists},{codes}", _metric(metric))
    index.cp.niter, index.cp.seed = _KMEANS_ITERATIONS, seed + 1
    index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = PER_LIST, 1
    if kind == "ivfpq":
        index.pq.cp.min_points_per_centroid = 1
    index.train(prepared)
    trained: _faiss.Index = index
    return trained


def fill(
    trained: _faiss.Index | None, prepared: Float32[np.ndarray, "row joint"], kind: Kind, metric: Metric
) -> _faiss.Index:
    """Return the index of one shard over its rows, in order; of a listed kind, add the rows to `trained` itself."""
    if kind in LISTED:
        assert trained is not None  # a listed kind has a quantizer
        trained.add(prepared)
        return trained
    index = faiss.IndexHNSWFlat(prepared.shape[1], _LINKS, _metric(metric))
    index.hnsw.efConstruction = _EF_CONSTRUCTION
    index.add(prepared)
    filled: _faiss.Index = index
    return filled


def drop_quantizer(index: Any) -> None:
    """Remove the centroids from an index, as a shard's file stores it."""
    empty = faiss.IndexFlat(index.d, index.metric_type)
    index.quantizer = empty
    index.own_fields = False
    index.referenced_objects = [empty]


def set_quantizer(index: Any, trained: Any) -> None:
    """Give the index of a shard the centroids of `trained`, which it keeps alive."""
    index.quantizer, index.own_fields = trained.quantizer, False
    index.referenced_objects = [trained]


def centroids_of(trained: Any) -> Float32[np.ndarray, "list joint"]:
    """Return a copy of the centroids."""
    centroids: np.ndarray = trained.quantizer.reconstruct_n(0, trained.nlist)
    return centroids


def find_candidates(
    index: _faiss.Index,
    prepared: Float32[np.ndarray, "query joint"],
    fetched: int,
    *,
    params: SearchParams,
    probes: Probes | None,
    allowed: Bool[np.ndarray, "row"] | None,
) -> Candidates:
    """Return each query's candidates: from the probed lists, or from a graph search where there are no probes."""
    selector = _selector(allowed)
    if probes is None:
        search_params = faiss.SearchParametersHNSW(efSearch=max(params.ef, fetched), sel=selector)
        return as_candidates(index, *index.search(prepared, fetched, params=search_params))
    found = np.empty((len(prepared), fetched), np.float32), np.empty((len(prepared), fetched), np.int64)
    _search_preassigned(index, prepared, probes, selector=selector, into=found)
    return as_candidates(index, *found)


class CandidateHeap:
    """The best candidates of each query so far, which the lists of one shard after another are added to.

    FAISS fills the heap in place; a heap of its own per shard takes twice as long for 8 shards.
    """

    def __init__(self, queries: int, fetched: int, metric: Metric) -> None:
        self._negative = metric == "l2"
        self._values = np.full((queries, fetched), np.inf if self._negative else -np.inf, np.float32)
        self._rows = np.full((queries, fetched), -1, np.int64)

    def add(
        self,
        index: Any,
        prepared: Float32[np.ndarray, "query joint"],
        probes: Probes,
        *,
        first: int,
        allowed: Bool[np.ndarray, "row"] | None,
    ) -> None:
        """Add the rows in the probed lists of a shard, whose first row in the index is `first`."""
        index.parallel_mode = index.PARALLEL_MODE_NO_HEAP_INIT
        selector = _selector(allowed)
        _search_preassigned(index, prepared, probes, selector=selector, into=(self._values, self._rows))
        new = (self._rows >= 0) & (self._rows < _MARK)
        np.add(self._rows, first + _MARK, out=self._rows, where=new)

    def candidates(self) -> Candidates:
        """Return approximate scores and rows of the index, in no order."""
        scores = -self._values if self._negative else self._values
        return scores, np.where(self._rows >= 0, self._rows - _MARK, -1)


def as_candidates(index: _faiss.Index, values: np.ndarray, rows: np.ndarray) -> Candidates:
    """Return FAISS's result with scores: minus the squared distance for l2, -inf for a missing row."""
    scores = -values if index.metric_type == _faiss.METRIC_L2 else values
    scores[rows < 0] = -np.inf
    return scores, rows


def _search_preassigned(
    index: Any,
    prepared: Float32[np.ndarray, "query joint"],
    probes: Probes,
    *,
    selector: _faiss.IDSelector | None,
    into: tuple[np.ndarray, np.ndarray],
) -> None:
    """Search the probed lists and write FAISS's values and rows."""
    values, rows = into
    scores, lists = (np.ascontiguousarray(part) for part in probes)
    if index.metric_type == faiss.METRIC_L2:
        scores = -scores
    prepared = np.ascontiguousarray(prepared)
    params = faiss.SearchParametersIVF(nprobe=lists.shape[1], sel=selector)
    x, assigned, distances, out, labels = (faiss.swig_ptr(array) for array in (prepared, lists, scores, values, rows))
    # The wrapper of this method takes no parameters (faiss 1.15), so the wrapped method is called.
    sizes = len(prepared), values.shape[1]
    index.search_preassigned_c(sizes[0], x, sizes[1], assigned, distances, out, labels, False, params)  # noqa: FBT003


def _selector(allowed: Bool[np.ndarray, "row"] | None) -> Any:
    return None if allowed is None else faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))


def _subvectors(joint: int) -> int:
    """Return the number of subvectors for 4-bit codes: of 4 dimensions or fewer each."""
    return next(parts for parts in range(max(1, joint // 4), joint + 1) if joint % parts == 0)


def _metric(metric: Metric) -> int:
    value: int = faiss.METRIC_INNER_PRODUCT if metric == "cosine" else faiss.METRIC_L2
    return value
