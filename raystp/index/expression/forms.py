"""Expression in memory or mapped from files, dense or sparse, and its share of weighted sums.

Both forms give the same numbers from the same interface. They differ in what is read: 4 or 2 bytes of every value, or 6
to 8 bytes of each value that is not zero.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Int64, Shaped

from raystp.errors import ModelError, some
from raystp.index.expression import kernels
from raystp.index.expression.kernels import Kernel
from raystp.index.expression.sums import NeighbourSums, embedding_bag, run_over_queries

Form = Literal["float32", "float16", "csr", "csr16"]
"""Dense float32 or float16; sparse rows of float32 or float16 values."""

Genes = Int64[np.ndarray, "gene"] | None

_UNUSED_SLOTS = 64
"""Output columns for genes that are not requested: with one, each addition would wait for the last (6 times slower)."""
_PICK_BELOW = 16
"""Below one gene in so many, single values are read faster than whole rows."""
_QUERIES_PER_BLOCK = 512
"""Queries whose whole rows are summed at a time, where most genes are requested."""


@runtime_checkable
class ExpressionRows(Protocol):
    """A shard's expression in any form: rows, and its share of weighted sums over the rows of the whole index."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and genes."""
        ...

    @property
    def form(self) -> Form:
        """How the values are stored."""
        ...

    def rows(self, ids: Int64[np.ndarray, "row"], genes: Genes = None) -> Float32[np.ndarray, "row gene"]:
        """Return a dense copy of these rows (0 is the shard's first), in the given order, of these genes or all."""
        ...

    def share_of_sum(
        self,
        weights: Float32[np.ndarray, "query k"],
        rows: Int64[np.ndarray, "query k"],
        first_row: int = 0,
        genes: Genes = None,
    ) -> Float32[np.ndarray, "query gene"]:
        """Return this shard's share of each query's weighted sum, of these genes in their order, or of all.

        `rows` are rows of the index; this shard has those from `first_row` on. Others add 0 and are not read.
        """
        ...

    def share_of_spread(
        self,
        weights: Float32[np.ndarray, "query k"],
        rows: Int64[np.ndarray, "query k"],
        mean: Float32[np.ndarray, "query gene"],
        first_row: int = 0,
        *,
        genes: Genes = None,
    ) -> Float32[np.ndarray, "query gene"]:
        """Return this shard's share of the sum of weight x (row - mean)^2; shares add up to the weighted variance."""
        ...


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
        """How the values are stored."""
        return "float32" if self.values.dtype == np.float32 else "float16"

    def rows(self, ids: Int64[np.ndarray, "row"], genes: Genes = None) -> Float32[np.ndarray, "row gene"]:
        """Return a copy of these rows (0 is the shard's first), in the given order, of these genes or all."""
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
        genes: Genes = None,
    ) -> Float32[np.ndarray, "query gene"]:
        """Return this shard's share of each query's weighted sum, of these genes in their order, or of all.

        `rows` are rows of the index; this shard has those from `first_row` on. Others add 0 and are not read.
        """
        if genes is None and self.values.dtype == np.float32:
            return embedding_bag(NeighbourSums(weights, rows, first_row), self.values)
        if genes is not None and _PICK_BELOW * len(genes) > self.shape[1]:
            check_ids(genes, self.shape[1], "genes")
            blocks = [slice(start, start + _QUERIES_PER_BLOCK) for start in range(0, len(rows), _QUERIES_PER_BLOCK)]
            shares = [self.share_of_sum(weights[block], rows[block], first_row)[:, genes] for block in blocks]
            return np.concatenate([np.zeros((0, len(genes)), np.float32), *shares])
        return self._share(kernels.dense_sum, NeighbourSums(weights, rows, first_row), genes)

    def share_of_spread(
        self,
        weights: Float32[np.ndarray, "query k"],
        rows: Int64[np.ndarray, "query k"],
        mean: Float32[np.ndarray, "query gene"],
        first_row: int = 0,
        *,
        genes: Genes = None,
    ) -> Float32[np.ndarray, "query gene"]:
        """Return this shard's share of the sum of weight x (row - mean)^2; shares add up to the weighted variance."""
        return self._share(kernels.dense_spread, NeighbourSums(weights, rows, first_row), genes, mean)

    def _share(self, kernel: Kernel, sums: NeighbourSums, genes: Genes, *mean: np.ndarray) -> np.ndarray:
        picked = np.zeros(0, np.int64) if genes is None else np.ascontiguousarray(genes)
        check_ids(picked, self.shape[1], "genes")
        bits = np.ascontiguousarray(self.values)
        bits = bits if bits.dtype == np.float32 else bits.view(np.uint16)
        columns = self.shape[1] if genes is None else len(picked)
        if genes is not None and not columns:
            return np.zeros((len(sums.rows), 0), np.float32)
        run = kernels.compiled_for(kernel, bits.dtype)
        return run_over_queries(run, sums, (bits, picked), mean, columns=columns, values_per_row=columns)


@dataclass(frozen=True, eq=False)
class SparseExpression:
    """The values that are not zero, row by row, each with its column."""

    values: Float[np.ndarray, "stored"]
    columns: Shaped[np.ndarray, "stored"]
    starts: Int64[np.ndarray, "starts"]
    """Row r has the values from starts[r] to starts[r + 1]."""
    genes: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and genes."""
        return len(self.starts) - 1, self.genes

    @property
    def form(self) -> Form:
        """How the values are stored."""
        return "csr" if self.values.dtype == np.float32 else "csr16"

    def rows(self, ids: Int64[np.ndarray, "row"], genes: Genes = None) -> Float32[np.ndarray, "row gene"]:
        """Return a dense copy of these rows (0 is the shard's first), in the given order, of these genes or all."""
        check_ids(ids, self.shape[0], "rows")
        return self.share_of_sum(np.ones((len(ids), 1), np.float32), ids[:, None], 0, genes)

    def share_of_sum(
        self,
        weights: Float32[np.ndarray, "query k"],
        rows: Int64[np.ndarray, "query k"],
        first_row: int = 0,
        genes: Genes = None,
    ) -> Float32[np.ndarray, "query gene"]:
        """Return this shard's share of each query's weighted sum, of these genes in their order, or of all.

        `rows` are rows of the index; this shard has those from `first_row` on. Others add 0 and are not read.
        """
        return self._share(kernels.sparse_sum, NeighbourSums(weights, rows, first_row), genes)

    def share_of_spread(
        self,
        weights: Float32[np.ndarray, "query k"],
        rows: Int64[np.ndarray, "query k"],
        mean: Float32[np.ndarray, "query gene"],
        first_row: int = 0,
        *,
        genes: Genes = None,
    ) -> Float32[np.ndarray, "query gene"]:
        """Return this shard's share of the sum of weight x (row - mean)^2; shares add up to the weighted variance."""
        return self._share(kernels.sparse_spread, NeighbourSums(weights, rows, first_row), genes, mean)

    def _share(self, kernel: Kernel, sums: NeighbourSums, genes: Genes, *mean: np.ndarray) -> np.ndarray:
        bits = self.values if self.values.dtype == np.float32 else self.values.view(np.uint16)
        run = kernels.compiled_for(kernel, bits.dtype, self.columns.dtype)
        values_per_row = len(self.values) // max(1, self.shape[0])
        stored: tuple[np.ndarray, ...] = (bits, self.columns, self.starts)
        if genes is None:
            slots = np.zeros(0, np.int32)
            return run_over_queries(
                run, sums, (*stored, slots), mean, columns=self.genes, values_per_row=values_per_row
            )
        check_ids(genes, self.genes, "genes")
        distinct, order = np.unique(genes, return_inverse=True)
        slots = (len(distinct) + np.arange(self.genes) % _UNUSED_SLOTS).astype(np.int32)
        slots[distinct] = np.arange(len(distinct), dtype=np.int32)
        columns = len(distinct) + _UNUSED_SLOTS
        means = tuple(np.zeros((len(array), columns), np.float32) for array in mean)
        for slotted, array in zip(means, mean, strict=True):
            slotted[:, order] = array
        found = run_over_queries(run, sums, (*stored, slots), means, columns=columns, values_per_row=values_per_row)
        return np.ascontiguousarray(found[:, order])


def check_ids(ids: np.ndarray, count: int, kind: str) -> None:
    """Raise ModelError where ids are not 0 to count - 1."""
    bad = [str(one) for one in np.unique(ids[(ids < 0) | (ids >= count)]).tolist()]
    if bad:
        msg = f"{kind} {some(bad)} requested; the expression has {kind} 0 to {count - 1}"
        raise ModelError(msg)
