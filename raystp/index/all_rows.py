"""Weighted means over every row of an index, without a list of neighbours: one pass, block by block.

    rows of a block -> scores -> logarithms of weights -> sums of weight, weight x row [, weight x row^2]

Weights are relative to the largest so far, so that no exponential overflows. Blocks, shards and processes are merged by
their largest weights, as in a streaming softmax (Milakov & Gimelshein 2018, arXiv 1805.02867). Scores are float64
products, so results differ between blocks by the rounding of float32 sums. A row that has not measured a gene has no
vote for it: weights are summed per pattern of measured genes (`raystp.index.expression.measured`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from raystp.index.expression.forms import ExpressionRows
from raystp.index.expression.measured import NO_SPREAD, MeasuredGenes
from raystp.index.search.score import Metric

Genes = Int64[np.ndarray, "gene"] | None

_QUERIES = 1024
"""Queries whose sums are in memory at a time, in float64: 160 MB with 20,000 genes."""
_VALUES = 1 << 22
"""Values of expression in memory at a time: 16 MB in float32."""
_LEAST = 1e-30
"""Least weight, relative to the query's largest, of the rows that measured a gene; float32 sums of less are not exact.
"""
_ROWS = 1024
"""Rows weighed at a time, at most."""


@runtime_checkable
class RowWeighting(Protocol):
    """How every row is weighted, and what is summed; it is sent to other processes."""

    @property
    def input(self) -> Literal["scores", "squared distances"]:
        """What the formula reads; squared distances are between vectors as the model gave them, not normalised."""
        ...

    @property
    def squares(self) -> bool:
        """Whether squared expression is summed too, for a variance."""
        ...

    def log_weights(self, values: Float32[np.ndarray, "query row"]) -> Float64[np.ndarray, "query row"]:
        """Return the logarithms of the weights, up to a constant per query."""
        ...


@dataclass(frozen=True, eq=False)
class WeighedRows:
    """Rows that are weighed together: a shard, or spots in memory."""

    metric: Metric
    vectors: Float32[np.ndarray, "row joint"]
    """As they are compared: of length 1 for cosine."""
    lengths: Float64[np.ndarray, "row"] | None
    """Lengths of the vectors as the model gave them, for cosine."""
    expression: ExpressionRows
    pattern: Int64[np.ndarray, "row"] | None = None
    """Number of each row's pattern of measured genes; None where every row has measured all."""
    patterns: int = 1


@dataclass(frozen=True, eq=False)
class RowSums:
    """Sums over some rows, with weights relative to the largest of them."""

    largest: Float64[np.ndarray, "query"]
    """Logarithm of the largest weight; -inf where there is no row."""
    weight: Float64[np.ndarray, "query pattern"]
    total: Float32[np.ndarray, "query gene"]
    squares: Float32[np.ndarray, "query gene"] | None = None


def sum_rows(
    rows: WeighedRows,
    queries: Float32[np.ndarray, "query joint"],
    query_lengths: Float64[np.ndarray, "query"],
    weighting: RowWeighting,
    *,
    allowed: Bool[np.ndarray, "row"] | None = None,
    genes: Genes = None,
) -> RowSums:
    """Return the sums over all rows, or the allowed ones, for prepared queries and their lengths before that."""
    width = rows.expression.shape[1] if genes is None else len(genes)
    shape = (len(queries), width)
    sums = RowSums(
        np.full(len(queries), -np.inf),
        np.zeros((len(queries), rows.patterns)),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.float32) if weighting.squares else None,
    )
    size = max(1, min(_ROWS, _VALUES // max(1, width)))
    for start in range(0, len(queries), _QUERIES):
        part = slice(start, start + _QUERIES)
        block = _Block(rows, queries[part].astype(np.float64), query_lengths[part], weighting=weighting, width=width)
        for first in range(0, len(rows.vectors), size):
            ids = np.arange(first, min(first + size, len(rows.vectors)))
            ids = ids if allowed is None else ids[allowed[ids]]
            if len(ids):
                block.add(ids, genes)
        block.write(sums, part)
    return sums


def merge_sums(parts: Sequence[RowSums]) -> RowSums:
    """Return the sums over all parts' rows; the order of the parts changes the rounding only."""
    if len(parts) == 1:
        return parts[0]
    largest = np.max([part.largest for part in parts], axis=0)
    scales = [_scale(part.largest, largest) for part in parts]
    weight = np.sum([part.weight * scale[:, None] for part, scale in zip(parts, scales, strict=True)], axis=0)
    total = _scaled_sum([part.total for part in parts], scales)
    squares = [part.squares for part in parts if part.squares is not None]
    return RowSums(largest, weight, total, _scaled_sum(squares, scales) if squares else None)


def mean_and_variance(
    sums: RowSums, measured: MeasuredGenes | None, genes: Genes = None
) -> tuple[Float32[np.ndarray, "query gene"], Float32[np.ndarray, "query gene"] | None]:
    """Return the weighted means, and the variances if squares were summed; NaN for a gene that no row has measured.

    A gene whose rows all have a negligible weight (below `_LEAST`) is as one that no row has measured.
    """
    if measured is None:
        weight = sums.weight
    else:
        patterns = measured.patterns if genes is None else measured.patterns[:, genes]
        weight = sums.weight @ patterns.astype(np.float64)
    weight = np.where(weight > _LEAST, weight, np.nan)
    mean = sums.total / weight
    if sums.squares is None:
        return mean.astype(np.float32), None
    square = np.square(mean)
    variance = np.maximum(sums.squares / weight - square, 0)
    variance[variance < NO_SPREAD * square] = 0  # rounding of the sums that are subtracted
    return mean.astype(np.float32), variance.astype(np.float32)


class _Block:
    """The running sums of a block of queries."""

    def __init__(
        self, rows: WeighedRows, queries: np.ndarray, lengths: np.ndarray, *, weighting: RowWeighting, width: int
    ) -> None:
        self.rows, self.queries, self.lengths, self.weighting = rows, queries, lengths, weighting
        self.largest = np.full(len(queries), -np.inf)
        self.weight = np.zeros((len(queries), rows.patterns))
        self.total = np.zeros((len(queries), width))
        self.squares = np.zeros((len(queries), width)) if weighting.squares else None

    def add(self, ids: Int64[np.ndarray, "row"], genes: Genes) -> None:
        """Add rows by their number; earlier sums are scaled to the new largest weight."""
        logarithms = self.weighting.log_weights(self._values(ids))
        largest = np.maximum(self.largest, logarithms.max(axis=1))
        scale = _scale(self.largest, largest)
        weights = np.exp(logarithms - largest[:, None])
        expression, self.largest = self.rows.expression.rows(ids, genes), largest
        if (scale < 1).any():
            self.weight *= scale[:, None]
            self.total *= scale[:, None]
        pattern = np.zeros(len(ids), np.int64) if self.rows.pattern is None else self.rows.pattern[ids]
        for number in np.unique(pattern).tolist():
            self.weight[:, number] += weights[:, pattern == number].sum(axis=1)
        single = weights.astype(np.float32)
        self.total += single @ expression
        if self.squares is not None:
            self.squares *= scale[:, None]
            self.squares += single @ np.square(expression)

    def write(self, sums: RowSums, part: slice) -> None:
        """Write the sums of these queries."""
        sums.largest[part], sums.weight[part], sums.total[part] = self.largest, self.weight, self.total
        if sums.squares is not None:
            sums.squares[part] = self.squares

    def _values(self, ids: Int64[np.ndarray, "row"]) -> Float32[np.ndarray, "query row"]:
        """Return the scores of these rows, or their squared distances."""
        vectors = self.rows.vectors[ids].astype(np.float64)
        products = self.queries @ vectors.T
        if self.rows.metric == "cosine" and self.weighting.input == "scores":
            return np.asarray(products, np.float32)
        if self.rows.metric == "cosine":
            assert self.rows.lengths is not None  # stored for cosine
            own = self.rows.lengths[ids]
            products *= self.lengths[:, None] * own
        else:
            own = np.sqrt(np.square(vectors).sum(axis=1))
        squared = np.maximum(np.square(self.lengths)[:, None] + np.square(own) - 2 * products, 0)
        return np.asarray(squared if self.weighting.input == "squared distances" else -squared, np.float32)


def _scale(old: Float64[np.ndarray, "query"], new: Float64[np.ndarray, "query"]) -> Float64[np.ndarray, "query"]:
    """Return exp(old - new), 0 where there was no row before."""
    return np.asarray(np.exp(np.where(np.isneginf(old), -np.inf, old - np.where(np.isneginf(new), 0, new))))


def _scaled_sum(values: Sequence[np.ndarray], scales: Sequence[np.ndarray]) -> Float32[np.ndarray, "query gene"]:
    summed = np.zeros(values[0].shape, np.float32)
    for value, scale in zip(values, scales, strict=True):
        summed += value * scale[:, None].astype(np.float32)
    return summed
