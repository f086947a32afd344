"""FAISS indexes of the approximate kinds: trained once, filled per shard, asked for candidates.

All shards of a bank share one trained index without rows (`quantizer.faiss`): its centroids and codes. A shard's file
holds its lists alone, so a query looks into the same lists however the bank is cut. Which lists are nearest to a query
is decided by each centroid's own score, so that it does not depend on the queries beside it.
"""

from typing import Any

import faiss as _faiss
import numpy as np
from jaxtyping import Bool, Float32, Int64

from raystp.index.search.kinds import LISTED, Kind, SearchParams
from raystp.index.search.score import Metric

faiss: Any = _faiss
"""Without its types, which leave out what its Python layer adds."""

Probes = tuple[Float32[np.ndarray, "query probe"], Int64[np.ndarray, "query probe"]]
"""Scores and numbers of the lists that each query looks into."""

Candidates = tuple[Float32[np.ndarray, "query fetched"], Int64[np.ndarray, "query fetched"]]
"""Approximate scores and rows, -inf and -1 where there are no more."""

PER_LIST = 64
"""Rows of the sample that a centroid is trained on."""

_LINKS, _BUILD = 32, 80  # of a graph: neighbours of a row, and rows in view while it is put in
_ROUNDS = 10


def train(prepared: Float32[np.ndarray, "row joint"], kind: Kind, lists: int, *, metric: Metric, seed: int) -> Any:
    """Return an index without rows, trained on a sample of the bank."""
    joint = prepared.shape[1]
    codes = {"ivf": "Flat", "ivfsq": "SQfp16", "ivfpq": f"PQ{_parts(joint)}x4fs"}[kind]
    index = faiss.index_factory(joint, f"IVF{lists},{codes}", _metric(metric))
    index.cp.niter, index.cp.seed = _ROUNDS, seed + 1
    index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = PER_LIST, 1
    if kind == "ivfpq":
        index.pq.cp.min_points_per_centroid = 1
    index.train(prepared)
    return index


def fill(trained: Any, prepared: Float32[np.ndarray, "row joint"], kind: Kind, metric: Metric) -> Any:
    """Return the index of one shard over its rows, in their order: `trained` itself, if that is given."""
    if kind in LISTED:
        trained.add(prepared)
        return trained
    index = faiss.IndexHNSWFlat(prepared.shape[1], _LINKS, _metric(metric))
    index.hnsw.efConstruction = _BUILD
    index.add(prepared)
    return index


def without_quantizer(index: Any) -> Any:
    """Return the index with its centroids taken out, as a shard's file holds it."""
    empty = faiss.IndexFlat(index.d, index.metric_type)
    index.quantizer = empty
    index.own_fields = False
    index.referenced_objects = [empty]
    return index


def centroids_of(trained: Any) -> Float32[np.ndarray, "list joint"]:
    """Return a copy of the centroids."""
    found: np.ndarray = trained.quantizer.reconstruct_n(0, trained.nlist)
    return found


def ask(
    index: Any,
    prepared: Float32[np.ndarray, "query joint"],
    fetched: int,
    *,
    effort: SearchParams,
    probes: Probes | None,
    allowed: Bool[np.ndarray, "row"] | None,
) -> Candidates:
    """Return each query's candidates: from the lists to look into, or by a walk through the graph."""
    chosen = None if allowed is None else faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
    if probes is None:
        given = faiss.SearchParametersHNSW(efSearch=max(effort.ef, fetched), sel=chosen)
        near, rows = index.search(prepared, fetched, params=given)
    else:
        near, rows = _preassigned(index, prepared, fetched, probes=probes, chosen=chosen)
    if index.metric_type == faiss.METRIC_L2:
        near = -near
    near[rows < 0] = -np.inf
    return near, rows


def _preassigned(
    index: Any,
    prepared: np.ndarray,
    fetched: int,
    *,
    probes: tuple[np.ndarray, np.ndarray],
    chosen: faiss.IDSelector | None,
) -> tuple[np.ndarray, np.ndarray]:
    scores, lists = (np.ascontiguousarray(one) for one in probes)
    if index.metric_type == faiss.METRIC_L2:
        scores = -scores
    near = np.empty((len(prepared), fetched), np.float32)
    rows = np.empty((len(prepared), fetched), np.int64)
    given = faiss.SearchParametersIVF(nprobe=lists.shape[1], sel=chosen)
    pointers = [faiss.swig_ptr(one) for one in (prepared, lists, scores, near, rows)]
    x, assigned, distances, out, labels = pointers
    # The wrapper of this call takes no parameters (faiss 1.15), so what it wraps is called.
    index.search_preassigned_c(len(prepared), x, fetched, assigned, distances, out, labels, False, given)  # noqa: FBT003
    return near, rows


def _parts(joint: int) -> int:
    """Return into how many parts a vector is cut for 4-bit codes: of 4 dimensions or fewer."""
    return next(parts for parts in range(max(1, joint // 4), joint + 1) if joint % parts == 0)


def _metric(metric: Metric) -> int:
    found: int = faiss.METRIC_INNER_PRODUCT if metric == "cosine" else faiss.METRIC_L2
    return found
