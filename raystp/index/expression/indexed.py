"""Expression of the rows of an index, or of some of its shards: weighted means, and the values of single rows.

Row ids count over all shards of the index, whichever are open.
"""

import functools
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Int64

from raystp.errors import ModelError
from raystp.index.expression.measured import MeasuredGenes
from raystp.index.shard import IndexShard


@dataclass(frozen=True, eq=False, kw_only=True)
class IndexedExpression:
    """The expression of an open index, or of some shards of one."""

    genes: list[str]
    shards: list[IndexShard]
    """The open shards, in order."""
    rows: pa.Table
    """Where each row of the whole index came from (`raystp.index.reference.ROWS`), in order."""
    measured: MeasuredGenes | None = None
    """Which genes each row has measured; None where every row has measured all."""

    def weighted_mean(
        self,
        weights: Float32[np.ndarray, "query k"],
        rows: Int64[np.ndarray, "query k"],
        genes: Int64[np.ndarray, "gene"] | None = None,
    ) -> Float32[np.ndarray, "query gene"]:
        """Return each query's weighted mean of its rows' expression, of these genes or all; weights add to 1.

        A row that has not measured a gene has no vote for it; where no row has, the mean is NaN. All shards must be
        open. Raises ModelError for a row that the index does not have.
        """
        sums = self.weighted_sum(weights, rows, genes)
        return sums if self.measured is None else self.measured.mean(sums, weights, rows, genes)

    def weighted_variance(
        self,
        weights: Float32[np.ndarray, "query k"],
        rows: Int64[np.ndarray, "query k"],
        mean: Float32[np.ndarray, "query gene"],
        genes: Int64[np.ndarray, "gene"] | None = None,
    ) -> Float32[np.ndarray, "query gene"]:
        """Return the weighted variance of each query's rows around their mean, as in `weighted_mean`."""
        spread = self.weighted_spread(weights, rows, mean, genes)
        return spread if self.measured is None else self.measured.variance(spread, mean, weights, rows, genes=genes)

    def weighted_sum(
        self,
        weights: Float32[np.ndarray, "query k"],
        rows: Int64[np.ndarray, "query k"],
        genes: Int64[np.ndarray, "gene"] | None = None,
    ) -> Float32[np.ndarray, "query gene"]:
        """Return each query's weighted sum of its rows' expression, of these genes or all, added shard by shard.

        Rows of shards that are not open add 0. Raises ModelError for a row that the index does not have.
        """
        self.check_rows(rows)
        shares = (shard.expression.share_of_sum(weights, rows, shard.first, genes=genes) for shard in self.shards)
        return functools.reduce(_add, shares)

    def weighted_spread(
        self,
        weights: Float32[np.ndarray, "query k"],
        rows: Int64[np.ndarray, "query k"],
        mean: Float32[np.ndarray, "query gene"],
        genes: Int64[np.ndarray, "gene"] | None = None,
    ) -> Float32[np.ndarray, "query gene"]:
        """Return the sum of weight x (row - mean)^2, added as in `weighted_sum`."""
        self.check_rows(rows)
        shares = (
            shard.expression.share_of_spread(weights, rows, mean, shard.first, genes=genes) for shard in self.shards
        )
        return functools.reduce(_add, shares)

    def expression(self, rows: Int64[np.ndarray, "row"]) -> Float32[np.ndarray, "row gene"]:
        """Return a copy of these rows' expression, in the given order; NaN for a gene that a row has not measured.

        Raises ModelError for a row of a shard that is not open.
        """
        self.check_rows(rows, in_open_shards=True)
        values = np.empty((len(rows), len(self.genes)), np.float32)
        for shard in self.shards:
            here = rows_in(rows, shard)
            values[here] = shard.expression.rows(rows[here] - shard.first)
        if self.measured is not None:
            self.measured.rows(values, rows)
        return values

    def check_rows(self, rows: np.ndarray, *, in_open_shards: bool = False) -> None:
        """Raise ModelError for a row that the index does not have, or whose shard is not open."""
        if not rows.size:
            return
        if not 0 <= rows.min() <= rows.max() < self.rows.num_rows:
            msg = f"rows {rows.min()} to {rows.max()} requested; the index has rows 0 to {self.rows.num_rows - 1}"
            raise ModelError(msg)
        if in_open_shards and not np.logical_or.reduce([rows_in(rows, shard) for shard in self.shards]).all():
            msg = f"some of the rows {rows.min()} to {rows.max()} are in shards that are not open here"
            raise ModelError(msg)


def rows_in(rows: Int64[np.ndarray, "..."], shard: IndexShard) -> Bool[np.ndarray, "..."]:
    """Return which of these rows are in a shard."""
    inside: np.ndarray = (rows >= shard.first) & (rows < shard.end)
    return inside


def _add(total: np.ndarray, share: np.ndarray) -> np.ndarray:
    total += share
    return total
