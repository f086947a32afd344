"""Expression in memory or mapped from files, dense or sparse, and its share of a weighted sum.

Both forms answer the same questions with the same numbers; what differs is what is read: 4 or 2 bytes of every value,
or 6 to 8 of those that are not zero.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float32, Int64, Shaped

from raystp.errors import ModelError, some
from raystp.index.expression import kernels
from raystp.index.expression.sums import bags, over_queries

Form = Literal["float32", "float16", "csr", "csr16"]
"""Dense float32 or float16; sparse rows of float32 or float16 values."""

_ELSEWHERE = 64
"""Places for what nobody asked for: with one, each addition would wait for the one before (6 times slower)."""
_SPARED, _AT_ONCE = 16, 512
"""Below one gene in so many, picked values are read faster than whole rows; whole rows are summed so many at once."""


@dataclass(frozen=True, eq=False)
class DenseExpression:
    """Every value, in float32 or float16."""

    values: Float[np.ndarray, "row gene"]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and genes."""
        return self.values.shape[0], self.values.shape[1]

    @property
    def form(self) -> Form:
        """How the values are kept."""
        return "float32" if self.values.dtype == np.float32 else "float16"

    def rows(
        self, ids: Int64[np.ndarray, "row"], genes: Int64[np.ndarray, "gene"] | None = None
    ) -> Float32[np.ndarray, "row gene"]:
        """Return a copy of these rows (0 is the shard's first), in the order asked for, of these genes or all."""
        check_ids(ids, self.shape[0], "rows")
        if genes is None:
            return np.asarray(self.values[ids], np.float32)
        check_ids(genes, self.shape[1], "genes")
        return np.asarray(self.values[ids[:, None], genes], np.float32)

    def share_of_sum(
        self,
        weights: Float32[np.ndarray, "query k"],
        rows: Int64[np.ndarray, "query k"],
        first_row: int = 0,
        genes: Int64[np.ndarray, "gene"] | None = None,
    ) -> Float32[np.ndarray, "query gene"]:
        """Return this shard's part of each query's weighted sum, of these genes in their order, or of all.

        `rows` are the bank's, of which this shard has those from `first_row` on; others count nothing and are not read.
        """
        if genes is None and self.values.dtype == np.float32:
            return bags(weights, rows, first_row, self.values)
        if genes is not None and _SPARED * len(genes) > self.shape[1]:
            check_ids(genes, self.shape[1], "genes")
            cuts = range(0, len(rows), _AT_ONCE)
            parts = [(weights[cut : cut + _AT_ONCE], rows[cut : cut + _AT_ONCE]) for cut in cuts]
            shares = [self.share_of_sum(*part, first_row)[:, genes] for part in parts]
            return np.concatenate([np.zeros((0, len(genes)), np.float32), *shares])
        return self._share(kernels.dense_sum, (weights, rows, first_row), genes)

    def share_of_spread(
        self,
        weights: Float32[np.ndarray, "query k"],
        rows: Int64[np.ndarray, "query k"],
        mean: Float32[np.ndarray, "query gene"],
        first_row: int = 0,
        *,
        genes: Int64[np.ndarray, "gene"] | None = None,
    ) -> Float32[np.ndarray, "query gene"]:
        """Return this shard's part of the sum of weight x (row - mean)^2; the shares add to the weighted variance."""
        return self._share(kernels.dense_spread, (weights, rows, first_row), genes, mean)

    def _share(self, kernel: Callable[..., None], asked: Any, genes: Any, *mean: np.ndarray) -> np.ndarray:
        picked = np.zeros(0, np.int64) if genes is None else np.ascontiguousarray(genes)
        check_ids(picked, self.shape[1], "genes")
        bits = np.ascontiguousarray(self.values)
        bits = bits if bits.dtype == np.float32 else bits.view(np.uint16)
        width = self.shape[1] if genes is None else len(picked)
        if genes is not None and not width:
            return np.zeros((len(asked[1]), 0), np.float32)
        run = kernels.compiled(kernel, bits.dtype)
        return over_queries(run, asked, (bits, picked), mean, width=width, read=width)


@dataclass(frozen=True, eq=False)
class SparseExpression:
    """The values that are not zero, row by row, each with its column."""

    values: Float[np.ndarray, "stored"]
    columns: Shaped[np.ndarray, "stored"]
    starts: Int64[np.ndarray, "starts"]
    """Row r has the values from starts[r] up to starts[r + 1]."""
    genes: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and genes."""
        return len(self.starts) - 1, self.genes

    @property
    def form(self) -> Form:
        """How the values are kept."""
        return "csr" if self.values.dtype == np.float32 else "csr16"

    def rows(
        self, ids: Int64[np.ndarray, "row"], genes: Int64[np.ndarray, "gene"] | None = None
    ) -> Float32[np.ndarray, "row gene"]:
        """Return a dense copy of these rows (0 is the shard's first), in the order asked for, of these genes or all."""
        check_ids(ids, self.shape[0], "rows")
        return self.share_of_sum(np.ones((len(ids), 1), np.float32), ids[:, None], 0, genes)

    def share_of_sum(
        self,
        weights: Float32[np.ndarray, "query k"],
        rows: Int64[np.ndarray, "query k"],
        first_row: int = 0,
        genes: Int64[np.ndarray, "gene"] | None = None,
    ) -> Float32[np.ndarray, "query gene"]:
        """Return this shard's part of each query's weighted sum, of these genes in their order, or of all.

        `rows` are the bank's, of which this shard has those from `first_row` on; others count nothing and are not read.
        """
        return self._share(kernels.sparse_sum, (weights, rows, first_row), genes)

    def share_of_spread(
        self,
        weights: Float32[np.ndarray, "query k"],
        rows: Int64[np.ndarray, "query k"],
        mean: Float32[np.ndarray, "query gene"],
        first_row: int = 0,
        *,
        genes: Int64[np.ndarray, "gene"] | None = None,
    ) -> Float32[np.ndarray, "query gene"]:
        """Return this shard's part of the sum of weight x (row - mean)^2; the shares add to the weighted variance."""
        return self._share(kernels.sparse_spread, (weights, rows, first_row), genes, mean)

    def _share(self, kernel: Callable[..., None], asked: Any, genes: Any, *mean: np.ndarray) -> np.ndarray:
        bits = self.values if self.values.dtype == np.float32 else self.values.view(np.uint16)
        run = kernels.compiled(kernel, bits.dtype, self.columns.dtype)
        read = len(self.values) // max(1, self.shape[0])
        held: tuple[np.ndarray, ...] = (bits, self.columns, self.starts)
        if genes is None:
            slots = np.zeros(0, np.int32)
            return over_queries(run, asked, (*held, slots), mean, width=self.genes, read=read)
        check_ids(genes, self.genes, "genes")
        wanted, at = np.unique(genes, return_inverse=True)
        slots = (len(wanted) + np.arange(self.genes) % _ELSEWHERE).astype(np.int32)
        slots[wanted] = np.arange(len(wanted), dtype=np.int32)
        width = len(wanted) + _ELSEWHERE
        means = [np.zeros((len(one), width), np.float32) for one in mean]
        for spared, one in zip(means, mean, strict=True):
            spared[:, at] = one
        found = over_queries(run, asked, (*held, slots), tuple(means), width=width, read=read)
        return np.ascontiguousarray(found[:, at])


def check_ids(ids: np.ndarray, count: int, what: str) -> None:
    """Raise ModelError where ids are not 0 to count - 1."""
    bad = [str(one) for one in np.unique(ids[(ids < 0) | (ids >= count)]).tolist()]
    if bad:
        msg = f"{what} {some(bad)} were asked of expression whose {what} are 0 to {count - 1}"
        raise ModelError(msg)
