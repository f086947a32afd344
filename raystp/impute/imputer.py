"""Predict expression from a reference index: embed tiles, search, weight the neighbours, sum their expression.

The index is open in this process, or actors hold its shards: the results are the same.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from raystp.errors import ModelError, some
from raystp.impute.calibration import Calibration
from raystp.impute.weights import RowWeights, all_rows_weights, weighting_of

Weights = Float32[np.ndarray, "tile k"]
Rows = Int64[np.ndarray, "tile k"]
Columns = Int64[np.ndarray, " gene"]
Expression = Float32[np.ndarray, "tile gene"]
Allowed = Bool[np.ndarray, " row"]
Queries = Float32[np.ndarray, "tile joint"]
SearchResult = tuple[Float32[np.ndarray, "tile k"], Int64[np.ndarray, "tile k"]]
"""Scores and rows, best first."""


@runtime_checkable
class ImageEmbedder(Protocol):
    """A contrastive model, as far as imputation needs it."""

    @property
    def d_image(self) -> int:
        """Dimensions of the image features that the model reads."""

    def embed_images(self, features: Float[np.ndarray, "tile feature"]) -> Queries:
        """Return the embeddings of tiles in the joint space."""


@runtime_checkable
class SearchableIndex(Protocol):
    """A reference index: search, and the expression of its rows."""

    @property
    def genes(self) -> list[str]:
        """Names of the columns of expression."""

    @property
    def measured(self) -> object | None:
        """Which genes each row has measured; None where every row has measured all."""

    def search(self, queries: Queries, k: int, *, allowed: Allowed | None = None) -> SearchResult:
        """Return the scores and rows of each query's k nearest rows, as the index's kind finds them."""

    def search_exactly(self, queries: Queries, k: int, *, allowed: Allowed | None = None) -> SearchResult:
        """Return the scores and rows of each query's k nearest rows, comparing every row."""

    def nearest_distance(self, best: Float32[np.ndarray, " tile"]) -> Float32[np.ndarray, " tile"]:
        """Return the distance of each query's nearest row by its score."""

    def squared_distances(
        self, queries: Queries, rows: Rows, *, distance: Literal["l2", "l1"] = "l2"
    ) -> Float32[np.ndarray, "tile k"]:
        """Return d^2 between vectors as the model gave them, not normalised."""

    def weighted_mean(self, weights: Weights, rows: Rows, genes: Columns | None = None) -> Expression:
        """Return the weighted means of the rows' expression; NaN for a gene that none of the rows has measured."""

    def weighted_variance(
        self, weights: Weights, rows: Rows, mean: Expression, genes: Columns | None = None
    ) -> Expression:
        """Return the weighted means of squared differences from a mean."""

    def mean_of_all_rows(
        self, queries: Queries, weighting: RowWeights, *, allowed: Allowed | None = None, genes: Columns | None = None
    ) -> tuple[Expression, Expression | None]:
        """Return the weighted means over all rows, and the variances if the weights sum squares."""

    def rows_where(self, column: str, values: Iterable[str], *, drop: bool = False) -> Allowed:
        """Return the mask of rows whose column is among the values, or is not."""

    def rows_without(self, patients: Iterable[str]) -> Allowed:
        """Return the mask of all other patients' rows."""


@dataclass(frozen=True)
class FoundNeighbours:
    """The nearest rows of some tiles, best first, and their weights, which add to 1."""

    scores: Float32[np.ndarray, "tile k"]
    rows: Rows
    weights: Weights


@dataclass(frozen=True)
class Imputed:
    """Predicted expression of some tiles."""

    expression: Expression
    distance: Float32[np.ndarray, " tile"]
    """Distance of each tile's nearest row: 1 - cosine, or Euclidean."""
    spread: Expression | None = None
    neighbours: FoundNeighbours | None = None
    """None where every row of the index has a vote."""


@dataclass(frozen=True)
class NeighborImputer:
    """A contrastive model and its reference index."""

    model: ImageEmbedder
    index: SearchableIndex
    weights: str = "mean"
    """A key of `raystp.impute.weights.WEIGHTS`."""
    temperature: float | None = None
    """Temperature of the weights, in the unit of the scores or squared distances; None for their default."""
    calibration: Calibration | None = None
    """Correction of what `impute` returns."""

    @property
    def genes(self) -> list[str]:
        """Genes that can be predicted."""
        return self.index.genes

    def columns(self, genes: Sequence[str] | None) -> Columns | None:
        """Return the columns of genes by name, None for all; raise ModelError for genes that the index lacks."""
        if genes is None:
            return None
        column_of = {gene: column for column, gene in enumerate(self.genes)}
        unknown = [gene for gene in genes if gene not in column_of]
        if unknown:
            msg = (
                f"the index has no genes {some(unknown)}; it has {len(column_of)} genes, such as "
                f"{', '.join(self.genes[:5])}"
            )
            raise ModelError(msg)
        return np.asarray([column_of[gene] for gene in genes], np.int64)

    def find(
        self,
        features: Float[np.ndarray, "tile feature"],
        k: int,
        *,
        allowed: Allowed | None = None,
        exact: bool = False,
    ) -> FoundNeighbours:
        """Return the k neighbours of each tile; `exact` compares every row, whatever the kind of the index.

        Raises:
            ModelError: features of another encoder, or k exceeds the allowed rows.
        """
        queries = self.model.embed_images(features)
        search = self.index.search_exactly if exact else self.index.search
        scores, rows = search(queries, k, allowed=allowed)
        weighting, read = weighting_of(self.weights, self.temperature), scores
        if weighting.input == "squared distances":
            read = self.index.squared_distances(queries, rows, distance=weighting.distance)
        return FoundNeighbours(scores, rows, weighting.compute(read, self.temperature))

    def impute(
        self,
        features: Float[np.ndarray, "tile feature"],
        k: int | Literal["all"],
        *,
        genes: Columns | None = None,
        spread: bool = False,
        allowed: Allowed | None = None,
        exact: bool = False,
    ) -> Imputed:
        """Return the prediction of each tile from its k neighbours, or from all (allowed) rows; raise as `find` does.

        All rows are read in blocks, for all tiles of a call together; no list of neighbours is made.
        """
        weights = all_rows_weights(self.weights, self.temperature, squares=spread) if k == "all" else None
        if weights is None:
            found = self.find(features, 1 if k == "all" else k, allowed=allowed, exact=exact)
            return self.impute_from(found, self.distance(found), genes, spread=spread)
        queries = self.model.embed_images(features)
        nearest, _ = self.index.search_exactly(queries, 1, allowed=allowed)
        mean, variance = self.index.mean_of_all_rows(queries, weights, allowed=allowed, genes=genes)
        deviation = None if variance is None else np.sqrt(variance)
        return self._calibrated(Imputed(mean, self.index.nearest_distance(nearest[:, 0]), deviation), genes)

    def impute_from(
        self,
        found: FoundNeighbours,
        distance: Float32[np.ndarray, " tile"],
        genes: Columns | None = None,
        *,
        spread: bool = False,
    ) -> Imputed:
        """Return the prediction from neighbours that are known, such as stored ones."""
        mean = self.expression(found, genes)
        deviation = self.spread(found, mean, genes) if spread else None
        return self._calibrated(Imputed(mean, distance, deviation, found), genes)

    def _calibrated(self, imputed: Imputed, genes: Columns | None) -> Imputed:
        fitted = self.calibration
        if fitted is None:
            return imputed
        spread = None if imputed.spread is None else fitted.spread(imputed.spread)
        return replace(imputed, expression=fitted.expression(imputed.expression, genes), spread=spread)

    def distance(self, found: FoundNeighbours) -> Float32[np.ndarray, " tile"]:
        """Return the distance of each tile's nearest row: 1 - cosine, or Euclidean."""
        return self.index.nearest_distance(found.scores[:, 0])

    def expression(self, found: FoundNeighbours, genes: Columns | None = None) -> Expression:
        """Return the weighted mean of the neighbours' expression, not calibrated.

        A neighbour that has not measured a gene has no vote for it; where none has measured it, the mean is NaN.
        """
        return self.index.weighted_mean(found.weights, found.rows, genes)

    def spread(self, found: FoundNeighbours, mean: Expression, genes: Columns | None = None) -> Expression:
        """Return the weighted standard deviation of the neighbours around `mean`, their weighted mean."""
        spread: Expression = np.sqrt(self.index.weighted_variance(found.weights, found.rows, mean, genes))
        return spread
