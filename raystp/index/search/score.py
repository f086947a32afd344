"""What a neighbour's score is, to the last bit, so that every way of searching gives one answer.

A matrix product's last bits depend on its shape, so two shards, or two block sizes, would order near-ties differently.
Here matrix products only find candidates; what counts is the score of a pair by itself: computed in float64 from the
float32 vectors, then rounded once to float32. It depends on the two vectors alone, so equal vectors tie exactly, and
ties go to the lower row.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64

from raystp.errors import ModelError, some
from raystp.index.search import kernels

Metric = Literal["cosine", "l2"]
"""`cosine`: the score is the cosine, in [-1, 1]. `l2`: the score is minus the squared Euclidean distance."""

METRICS: tuple[Metric, ...] = ("cosine", "l2")
ROUNDOFF = 2.0**-24
LONGEST = 1e18
"""A vector longer than this has squared distances beyond float32."""

_AT_ONCE = 512
"""Vectors handled at a time in float64: 1 MB at 256 dimensions stays in cache (3x faster than 4096 at a time)."""


def lengths(vectors: Float32[np.ndarray, "row joint"]) -> Float64[np.ndarray, "row"]:
    """Return each vector's Euclidean length; nan or inf where a value is."""
    total = np.empty(len(vectors), np.float64)
    for start in range(0, len(vectors), _AT_ONCE):
        block = vectors[start : start + _AT_ONCE].astype(np.float64)
        total[start : start + _AT_ONCE] = np.sqrt((block * block).sum(axis=1))
    return total


def prepare(vectors: Float32[np.ndarray, "row joint"], metric: Metric, whose: str) -> Float32[np.ndarray, "row joint"]:
    """Return the vectors as they are compared: of length 1 for `cosine`, as they are for `l2`.

    Raises ModelError, naming rows of `whose` ("bank", "query"), for vectors that are zero, not finite, or too long.
    """
    length = lengths(vectors)
    _check(length, whose)
    if metric == "l2":
        return np.ascontiguousarray(vectors)
    unit = np.empty(vectors.shape, np.float32)
    for start in range(0, len(vectors), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        unit[part] = vectors[part].astype(np.float64) / length[part, None]
    return unit


def pair_scores(
    left: Float32[np.ndarray, "pair joint"], right: Float32[np.ndarray, "pair joint"], metric: Metric
) -> Float32[np.ndarray, "pair"]:
    """Score prepared vectors pair by pair: the definition that every search answers with."""
    line = np.arange(len(left))
    return scores_of(left, right, (line, line), metric)


def scores_of(
    bank: Float32[np.ndarray, "row joint"],
    queries: Float32[np.ndarray, "query joint"],
    pairs: tuple[Int64[np.ndarray, "pair"], Int64[np.ndarray, "pair"]],
    metric: Metric,
) -> Float32[np.ndarray, "pair"]:
    """Score the (query, row) pairs of prepared vectors."""
    query, row = pairs
    scores = np.empty(len(query), np.float32)
    given = (_read(bank), _read(queries), row, query, metric == "l2", scores)
    kernels.over(kernels.score_pairs, len(query), given, size=len(query) * bank.shape[1])
    return scores


def of_candidates(
    bank: Float32[np.ndarray, "row joint"],
    queries: Float32[np.ndarray, "query joint"],
    rows: Int64[np.ndarray, "query fetched"],
    metric: Metric,
) -> Float32[np.ndarray, "query fetched"]:
    """Score each query's own rows, -inf where a row is below 0."""
    scores = np.empty(rows.shape, np.float32)
    given = (_read(bank), _read(queries), np.ascontiguousarray(rows), metric == "l2", scores)
    kernels.over(kernels.score_candidates, len(rows), given, size=rows.size * bank.shape[1])
    return scores


def safe_floor(
    queries: Float32[np.ndarray, "query joint"], kth: Float32[np.ndarray, "query"], metric: Metric
) -> Float64[np.ndarray, "query"]:
    """Return the approximate score below which no row can be among the best k, given the k-th best approximate score.

    A float32 sum of n products errs by at most n u |a| |b|, u = 2^-24 (Higham, Accuracy and Stability, 2002, eq. 3.5);
    squared distances from |a|^2 + |b|^2 - 2ab by twice that with |a|^2 + |b|^2. A row among the best k is no longer
    than the query plus the k-th distance; 1.1 covers the error of that distance itself.
    """
    steps = (queries.shape[1] + 4) * ROUNDOFF
    best: np.ndarray = kth.astype(np.float64)
    if metric == "cosine":
        best -= 2 * 1.01 * steps
        return best
    length = lengths(queries)
    longest = 1.1 * (length + np.sqrt(np.maximum(-best, 0.0)))
    best -= 2 * (2 * steps * (length**2 + longest**2) + queries.shape[1] * float(np.finfo(np.float32).tiny))
    return best


def count_allowed(allowed: np.ndarray | None, rows: int) -> int:
    """Return how many of a bank's rows a mask leaves; raises ModelError for a mask of another length."""
    if allowed is None:
        return rows
    if len(allowed) != rows:
        msg = f"the mask of allowed rows has {len(allowed)} places for a bank of {rows} rows: one a row is wanted"
        raise ModelError(msg)
    return int(allowed.sum())


def check_k(k: int, rows: int, what: str) -> None:
    """Raise ModelError where `k` neighbours cannot be had from `rows` rows."""
    if not 1 <= k <= rows:
        msg = f"k = {k} neighbours were asked of {what} with {rows} rows to choose from: k from 1 to {rows} would do"
        raise ModelError(msg)


def check_joint(bank: int, queries: int) -> None:
    """Raise ModelError where bank and queries differ in their number of dimensions."""
    if bank != queries:
        msg = f"the queries have {queries} dimensions and the bank has {bank}: both must come from the same model"
        raise ModelError(msg)


def _read(vectors: np.ndarray) -> np.ndarray:
    """Return the same vectors as an array that is only read, so that one compiled loop serves mapped files too."""
    view = np.ascontiguousarray(vectors).view()
    view.flags.writeable = False
    return view


def _check(length: Float64[np.ndarray, "row"], whose: str) -> None:
    for bad, what in (
        (~np.isfinite(length), "not finite"),
        (length == 0, "all zero"),
        (length > LONGEST, f"longer than {LONGEST:g}"),
    ):
        if bad.any():
            rows = [str(row) for row in np.flatnonzero(bad).tolist()]
            msg = f"{len(rows)} {whose} vectors are {what} (rows {some(rows)}): leave them out, or embed them again"
            raise ModelError(msg)
