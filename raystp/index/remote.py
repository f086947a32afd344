"""A reference index whose shards are open in other processes, behind the interface of `ReferenceIndex`.

What calls those processes is a `ShardCaller`; this module knows nothing of actors. Arguments and results of a
`ShardGroup` are arrays, or records of arrays and functions of a module, and its methods take positional arguments, so
that any remote call can carry them.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Int64

from raystp.index.all_rows import RowSums, RowWeighting, mean_and_variance, merge_sums
from raystp.index.description import IndexDescription
from raystp.index.expression.measured import MeasuredGenes
from raystp.index.open import ReferenceIndex, open_reference_index
from raystp.index.search.merge import PartResult, SearchResult, incomplete, merge_parts, merge_top_k
from raystp.index.search.score import Distance, check_k, count_allowed
from raystp.storage import StoragePath

Queries = Float32[np.ndarray, "query joint"]
Rows = Int64[np.ndarray, "query k"]
Weights = Float32[np.ndarray, "query k"]
Expression = Float32[np.ndarray, "query gene"]
Genes = Int64[np.ndarray, "gene"] | None
Allowed = Bool[np.ndarray, "row"] | None


@runtime_checkable
class ShardCaller(Protocol):
    """Calls a method of every `ShardGroup` of an index."""

    def call(self, method: str, *arguments: object) -> list[Any]:
        """Return the result of `method` of each group, in the order of the groups; raise what one raises."""
        ...

    def close(self) -> None:
        """End the processes of the groups."""
        ...


@dataclass(frozen=True)
class ShardGroup:
    """Some shards of an index, open in one process."""

    index: ReferenceIndex

    def nearest(self, queries: Queries, k: int, allowed: Allowed) -> PartResult:
        """Search these shards as their kind does."""
        return self.index.search_part(queries, k, allowed=allowed)

    def nearest_exactly(self, queries: Queries, k: int, allowed: Allowed) -> SearchResult:
        """Search these shards, comparing every row."""
        return self.index.search_exactly(queries, k, allowed=allowed)

    def distances(self, queries: Queries, rows: Rows, distance: Distance) -> Float32[np.ndarray, "query k"]:
        """Return d^2 to the rows of these shards, 0 for the others."""
        return self.index.squared_distances(queries, rows, distance=distance)

    def sums(self, weights: Weights, rows: Rows, genes: Genes) -> Expression:
        """Return these shards' share of weighted sums."""
        return self.index.weighted_sum(weights, rows, genes)

    def all_rows(self, queries: Queries, weighting: RowWeighting, allowed: Allowed, genes: Genes) -> RowSums:
        """Return the sums over all rows of these shards."""
        return self.index.sums_of_all_rows(queries, weighting, allowed=allowed, genes=genes)

    def spreads(self, weights: Weights, rows: Rows, mean: Expression, genes: Genes) -> Expression:
        """Return these shards' share of weighted squared differences."""
        return self.index.weighted_spread(weights, rows, mean, genes)


@dataclass(frozen=True)
class RemoteIndex:
    """An index whose shard groups are called through `shards`; its results equal those of a `ReferenceIndex`."""

    head: ReferenceIndex
    """The index without any shard: genes, metric and rows."""
    shards: ShardCaller

    @property
    def genes(self) -> list[str]:
        """Names of the columns of expression."""
        return self.head.genes

    @property
    def rows(self) -> pa.Table:
        """Where each row of the whole index came from."""
        return self.head.rows

    def search(self, queries: Queries, k: int, *, allowed: Allowed = None) -> SearchResult:
        """Search every group and merge; raise ModelError as `ReferenceIndex.search` does.

        One call per group: each scores its own candidates exactly, and those of the whole index are then chosen.
        """
        self._check(k, allowed)
        parts = self.shards.call("nearest", queries, k, allowed)
        scores, rows = merge_parts(parts, self.head.candidates_wanted(k), k)
        short = incomplete(rows)
        if short.any():
            scores[short], rows[short] = self.search_exactly(queries[short], k, allowed=allowed)
        return scores, rows

    def search_exactly(self, queries: Queries, k: int, *, allowed: Allowed = None) -> SearchResult:
        """Search every group exactly and merge; raise ModelError as `ReferenceIndex.search` does."""
        self._check(k, allowed)
        return merge_top_k(self.shards.call("nearest_exactly", queries, k, allowed), k)

    def _check(self, k: int, allowed: Allowed) -> None:
        """Raise before anything is sent."""
        check_k(k, count_allowed(allowed, self.head.rows.num_rows), "the index")

    def nearest_distance(self, best: Float32[np.ndarray, "query"]) -> Float32[np.ndarray, "query"]:
        """Return the distance of each query's nearest row by its score."""
        return self.head.nearest_distance(best)

    def squared_distances(
        self, queries: Queries, rows: Rows, *, distance: Distance = "l2"
    ) -> Float32[np.ndarray, "query k"]:
        """Return d^2: each row is in one group."""
        return functools.reduce(np.add, self.shards.call("distances", queries, rows, distance))

    @property
    def measured(self) -> MeasuredGenes | None:
        """Which genes each row has measured; None where every row has measured all."""
        return self.head.measured

    def weighted_mean(self, weights: Weights, rows: Rows, genes: Genes = None) -> Expression:
        """Return the mean from the groups' shares of the sum, added in their order."""
        sums = functools.reduce(np.add, self.shards.call("sums", weights, rows, genes))
        return sums if self.measured is None else self.measured.mean(sums, weights, rows, genes)

    def mean_of_all_rows(
        self, queries: Queries, weighting: RowWeighting, *, allowed: Allowed = None, genes: Genes = None
    ) -> tuple[Expression, Expression | None]:
        """Return the mean, and the variance, from the groups' sums over all rows."""
        self._check(1, allowed)
        sums = merge_sums(self.shards.call("all_rows", queries, weighting, allowed, genes))
        return mean_and_variance(sums, self.measured, genes)

    def weighted_variance(self, weights: Weights, rows: Rows, mean: Expression, genes: Genes = None) -> Expression:
        """Return the variance from the groups' shares of the sum, added in their order."""
        spread = functools.reduce(np.add, self.shards.call("spreads", weights, rows, mean, genes))
        return spread if self.measured is None else self.measured.variance(spread, mean, weights, rows, genes=genes)

    def rows_where(self, column: str, values: Iterable[str], *, drop: bool = False) -> Bool[np.ndarray, "row"]:
        """Return the mask of rows whose column is among the values, or is not."""
        return self.head.rows_where(column, values, drop=drop)

    def rows_without(self, patients: Iterable[str]) -> Bool[np.ndarray, "row"]:
        """Return the mask of all other patients' rows."""
        return self.head.rows_without(patients)

    def close(self) -> None:
        """End the processes of the shard groups."""
        self.shards.close()


def open_shard_group(folder: StoragePath, description: IndexDescription, groups: int, group: int) -> ShardGroup:
    """Open group `group` of `groups`: every `groups`-th shard."""
    shards = range(group, len(description["shards"]), groups)
    return ShardGroup(open_reference_index(folder, description, only=shards))
