"""Features -> neighbours in a bank -> expression: what `impute` and `serve` answer with, wherever the bank lies.

A bank is opened in this process, or its shards are held by actors (`RemoteIndex`): the same answers.
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from raystp.artifacts import Artifact
from raystp.cluster.streams.shard_pool import ShardPool, open_pool
from raystp.errors import ModelError, some
from raystp.impute.distance import nearest_distance
from raystp.impute.weights import WEIGHTS
from raystp.index.opened import ReferenceIndex, open_reference_index
from raystp.index.search.merge import Answer, merge_top_k, short_of
from raystp.index.search.score import check_k, count_allowed
from raystp.models.predictor import ContrastivePredictor
from raystp.storage import StoragePath

Weights = Float32[np.ndarray, "tile k"]
Rows = Int64[np.ndarray, "tile k"]
Columns = Int64[np.ndarray, " gene"]
Expression = Float32[np.ndarray, "tile gene"]
Allowed = Bool[np.ndarray, " row"]


@runtime_checkable
class SearchableIndex(Protocol):
    """A bank that can be asked."""

    @property
    def genes(self) -> list[str]:
        """Names of the columns of expression."""

    def search(self, queries: Float32[np.ndarray, "tile joint"], k: int, *, allowed: Allowed | None = None) -> Answer:
        """Return the scores and rows of each query's nearest k, as the bank's kind finds them."""

    def search_exactly(
        self, queries: Float32[np.ndarray, "tile joint"], k: int, *, allowed: Allowed | None = None
    ) -> Answer:
        """Return the same over all rows, whatever the kind."""

    def squared_distances(
        self, queries: Float32[np.ndarray, "tile joint"], rows: Rows
    ) -> Float32[np.ndarray, "tile k"]:
        """Return d^2 of vectors as the model gave them."""

    def weighted_sum(self, weights: Weights, rows: Rows, genes: Columns | None = None) -> Expression:
        """Return the weighted sums of rows' expression."""

    def weighted_spread(
        self, weights: Weights, rows: Rows, mean: Expression, genes: Columns | None = None
    ) -> Expression:
        """Return the weighted sums of squared differences from a mean."""

    def rows_where(self, column: str, values: Iterable[str], *, drop: bool = False) -> Allowed:
        """Return the rows whose column is among the values, or is not."""

    def rows_without(self, patients: Iterable[str]) -> Allowed:
        """Return the rows of all other patients."""


@dataclass(frozen=True)
class FoundNeighbours:
    """What was found of some tiles: the nearest rows of the bank, best first, and their weights, which add to 1."""

    scores: Float32[np.ndarray, "tile k"]
    rows: Rows
    weights: Weights


@dataclass(frozen=True)
class NeighborImputer:
    """A contrastive model and its bank, ready to answer."""

    model: ContrastivePredictor
    bank: SearchableIndex
    metric: str
    weights: str = "mean"

    @property
    def genes(self) -> list[str]:
        """Genes that can be asked for."""
        return self.bank.genes

    def columns(self, genes: Sequence[str] | None) -> Columns | None:
        """Return the columns of genes by name; None for all. Raises ModelError for genes that the bank has not."""
        if genes is None:
            return None
        at = {gene: column for column, gene in enumerate(self.genes)}
        unknown = [gene for gene in genes if gene not in at]
        if unknown:
            msg = f"the bank has no genes {some(unknown)}; it has {len(at)}, such as {', '.join(self.genes[:5])}"
            raise ModelError(msg)
        return np.asarray([at[gene] for gene in genes], np.int64)

    def find(
        self,
        features: Float[np.ndarray, "tile feature"],
        k: int,
        *,
        allowed: Allowed | None = None,
        exactly: bool = False,
    ) -> FoundNeighbours:
        """Return the neighbours of tiles; raises ModelError for features of another encoder, or a k beyond the bank."""
        queries = self.model.embed_images(features)
        search = self.bank.search_exactly if exactly else self.bank.search
        scores, rows = search(queries, k, allowed=allowed)
        way = WEIGHTS[self.weights]
        read = scores if way.reads == "scores" else self.bank.squared_distances(queries, rows)
        return FoundNeighbours(scores, rows, way.weigh(read))

    def distance(self, found: FoundNeighbours) -> Float32[np.ndarray, " tile"]:
        """Return how far each tile's nearest row is: 1 - cosine, or the Euclidean distance."""
        return nearest_distance(found.scores[:, 0], self.metric)

    def expression(self, found: FoundNeighbours, genes: Columns | None = None) -> Expression:
        """Return the weighted mean of the neighbours' expression."""
        return self.bank.weighted_sum(found.weights, found.rows, genes)

    def spread(self, found: FoundNeighbours, mean: Expression, genes: Columns | None = None) -> Expression:
        """Return the weighted standard deviation of the neighbours around `mean`, their own."""
        spread: Expression = np.sqrt(self.bank.weighted_spread(found.weights, found.rows, mean, genes))
        return spread


@dataclass(frozen=True)
class ShardGroup:
    """Some shards of a bank, as an actor holds them: methods without names for their arguments."""

    bank: ReferenceIndex

    def nearest(self, queries: Any, k: int, allowed: Any) -> Answer:
        """Search these shards as their kind does."""
        return self.bank.search(queries, k, allowed=allowed)

    def nearest_exactly(self, queries: Any, k: int, allowed: Any) -> Answer:
        """Search these shards exactly."""
        return self.bank.search_exactly(queries, k, allowed=allowed)

    def distances(self, queries: Any, rows: Any) -> Any:
        """Return d^2 to the rows that lie here, 0 for the rest."""
        return self.bank.squared_distances(queries, rows)

    def sums(self, weights: Any, rows: Any, genes: Any) -> Any:
        """Return this part's share of weighted sums."""
        return self.bank.weighted_sum(weights, rows, genes)

    def spreads(self, weights: Any, rows: Any, mean: Any, genes: Any) -> Any:
        """Return this part's share of squared differences."""
        return self.bank.weighted_spread(weights, rows, mean, genes)


@dataclass(frozen=True)
class RemoteIndex:
    """A bank whose shards are held by actors. `head` is the bank without any shard: its genes and rows."""

    head: ReferenceIndex
    pool: ShardPool

    @property
    def genes(self) -> list[str]:
        """Names of the columns of expression."""
        return self.head.genes

    def search(self, queries: Any, k: int, *, allowed: Allowed | None = None) -> Answer:
        """Ask every part and merge by (-score, row); raises ModelError as `ReferenceIndex.search` does."""
        self._check(k, allowed)
        scores, rows = merge_top_k(self.pool.call("nearest", queries, k, allowed), k)
        short = short_of(rows)
        if short.any():
            scores[short], rows[short] = self.search_exactly(queries[short], k, allowed=allowed)
        return scores, rows

    def search_exactly(self, queries: Any, k: int, *, allowed: Allowed | None = None) -> Answer:
        """Ask every part for its truth and merge; raises ModelError as `ReferenceIndex.search` does."""
        self._check(k, allowed)
        return merge_top_k(self.pool.call("nearest_exactly", queries, k, allowed), k)

    def _check(self, k: int, allowed: Allowed | None) -> None:
        """Raise before anything is sent."""
        check_k(k, count_allowed(allowed, self.head.rows.num_rows), "a bank")

    def squared_distances(self, queries: Any, rows: Rows) -> Any:
        """Return d^2: each row lies in one part."""
        return functools.reduce(np.add, self.pool.call("distances", queries, rows))

    def weighted_sum(self, weights: Weights, rows: Rows, genes: Columns | None = None) -> Expression:
        """Add up the parts' shares, in the parts' order."""
        return functools.reduce(np.add, self.pool.call("sums", weights, rows, genes))

    def weighted_spread(
        self, weights: Weights, rows: Rows, mean: Expression, genes: Columns | None = None
    ) -> Expression:
        """Add up the parts' shares, in the parts' order."""
        return functools.reduce(np.add, self.pool.call("spreads", weights, rows, mean, genes))

    def rows_where(self, column: str, values: Iterable[str], *, drop: bool = False) -> Allowed:
        """Return the rows whose column is among the values, or is not."""
        return self.head.rows_where(column, values, drop=drop)

    def rows_without(self, patients: Iterable[str]) -> Allowed:
        """Return the rows of all other patients."""
        return self.head.rows_without(patients)


def open_remote_index(index: Artifact, actors: int, *, replicas: int = 1, cpus: float = 0.0) -> RemoteIndex:
    """Start the actors that hold an index's shards, dealt evenly; at most one actor a shard, `replicas` times."""
    described = index.manifest.notes["bank"]
    parts = min(actors, len(described["shards"]))
    opened = functools.partial(open_shard_group, index.path, described, parts)
    pool = open_pool(opened, parts, replicas=replicas, cpus=cpus)
    return RemoteIndex(open_reference_index(index.path, described, only=()), pool)


def open_shard_group(place: StoragePath, described: dict[str, Any], parts: int, part: int) -> ShardGroup:
    """Open one part of `parts`: every `parts`-th shard."""
    return ShardGroup(open_reference_index(place, described, only=range(part, len(described["shards"]), parts)))
