"""One shard: a flat FAISS index, its file, and a search that answers exactly as `raystp.index.exact` does.

FAISS finds the candidates at the speed of a matrix product (selection included); it fetches a few past k, so that the
rows that tie with the k-th, or are within its rounding error, are all there. Where its list ends too early to be sure
(many equal or nearly equal vectors), the exact search answers for that query.
"""

import hashlib

import faiss
import numpy as np
from jaxtyping import Bool, Float32, Int64

from raystp.errors import ArtifactError
from raystp.index import exact, score
from raystp.index.merge import Answer, absent, top_of_pairs
from raystp.index.score import Metric
from raystp.storage import Place

_PAST_K = 32
"""Candidates fetched beyond k: free within FAISS's own selection (k = 50, 82 and 116 took the same time)."""


def build_shard(vectors: Float32[np.ndarray, "row joint"], *, metric: Metric) -> faiss.IndexFlat:
    """Return a flat index over the vectors in their order: IndexFlatIP over unit vectors for cosine, else IndexFlatL2.

    Raises ModelError for vectors that are zero or not finite.
    """
    return _flat(score.prepare(vectors, metric, "bank"), metric)


def write_shard(place: Place, index: faiss.IndexFlat) -> str:
    """Write the index to a file and return the file's sha256, without which it is not opened again."""
    content = faiss.serialize_index(index).tobytes()
    place.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def open_shard(place: Place, sha256: str) -> faiss.IndexFlat:
    """Open a shard's file after checking its sha256; raises ArtifactError for any other content.

    FAISS's reader crashes on crafted files, so it is given the very bytes that were checked, and nothing else.
    """
    content = place.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        msg = (
            f"{place} is not the file that its index was written with: sha256 {found[:12]}... over {len(content)} "
            f"bytes, {sha256[:12]}... was wanted; it is damaged or altered, run `raystp index` again"
        )
        raise ArtifactError(msg)
    index = faiss.deserialize_index(np.frombuffer(content, np.uint8))
    if not isinstance(index, faiss.IndexFlat):
        msg = f"{place} holds a {type(index).__name__}, raystp reads flat indexes"
        raise ArtifactError(msg)
    return index


def metric_of(index: faiss.IndexFlat) -> Metric:
    """Return the metric that a shard was built for."""
    return "cosine" if index.metric_type == faiss.METRIC_INNER_PRODUCT else "l2"


def vectors_of(index: faiss.IndexFlat) -> Float32[np.ndarray, "row joint"]:
    """Return the shard's prepared vectors without a copy: valid while `index` lives, not to be written to."""
    flat: np.ndarray = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
    return flat.reshape(index.ntotal, index.d)


def search_shard(
    index: faiss.IndexFlat,
    queries: Float32[np.ndarray, "query joint"],
    k: int,
    first_row: int = 0,
    *,
    allowed: Bool[np.ndarray, "row"] | None = None,
) -> tuple[Float32[np.ndarray, "query k"], Int64[np.ndarray, "query k"]]:
    """Return scores and rows of the k nearest rows, ordered and tied as in `exact.search`; rows count from `first_row`.

    A shard with fewer than k rows (or fewer `allowed`, a mask over its own rows) leaves places absent: row -1, score
    -inf. With `allowed` the rows that remain are copied into an index of their own for this call: FAISS's own row
    selector is 9 times slower on many queries (4.7 s against 0.5 s; 1,000 queries, 100,000 rows, 2 threads).

    Raises:
        ModelError: dimensions differ, k < 1, or a query is zero or not finite.
    """
    score.check_joint(index.d, queries.shape[1])
    score.check_k(k, max(k, 1), "a shard")
    metric = metric_of(index)
    prepared = score.prepare(queries, metric, "query")
    if allowed is None:
        scores, rows = _search(index, prepared, k, metric)
        return scores, np.where(rows >= 0, rows + first_row, rows)
    kept = np.flatnonzero(allowed)
    if not len(kept):
        return absent(len(queries), k)
    scores, rows = _search(_flat(vectors_of(index)[kept], metric), prepared, k, metric)
    return scores, np.where(rows >= 0, kept[rows] + first_row, rows)


def _search(index: faiss.IndexFlat, prepared: Float32[np.ndarray, "query joint"], k: int, metric: Metric) -> Answer:
    vectors = vectors_of(index)
    fetched = min(k + _PAST_K, index.ntotal)
    near, rows = index.search(prepared, fetched)
    if metric == "l2":
        near = -near
    floor = score.safe_floor(prepared, near[:, min(k, fetched) - 1], metric)
    query, column = np.nonzero(near >= floor[:, None])
    pairs = (query, rows[query, column])
    best = top_of_pairs(pairs, score.scores_of(vectors, prepared, pairs, metric), queries=len(prepared), k=k)
    unsure = (near[:, -1] >= floor) & (fetched < index.ntotal)
    if unsure.any():
        best[0][unsure], best[1][unsure] = exact.top_k(vectors, prepared[unsure], k, metric=metric)
    return best


def _flat(prepared: Float32[np.ndarray, "row joint"], metric: Metric) -> faiss.IndexFlat:
    index = (faiss.IndexFlatIP if metric == "cosine" else faiss.IndexFlatL2)(prepared.shape[1])
    index.add(prepared)
    return index
