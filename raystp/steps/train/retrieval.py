"""Expression retrieved from reference spots held in memory: exact search, then a weighted mean.

The same retrieval as through a reference index: a validation score, a permutation null, a calibration and the choice
among several retrievals are computed with it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from raystp.evaluate.metrics.genes import mse_and_spread, validation_pcc
from raystp.expression.training_set import SpotTable
from raystp.impute.weights import all_rows_weights, weighting_of
from raystp.index.all_rows import WeighedRows, mean_and_variance, sum_rows
from raystp.index.expression.forms import ExpressionRows
from raystp.index.expression.measured import MeasuredGenes
from raystp.index.expression.shard import in_memory
from raystp.index.search.exact import search
from raystp.index.search.merge import SearchResult
from raystp.index.search.score import lengths, prepare, squared_distances
from raystp.models.predict import embed_reference
from raystp.models.predictor import ContrastivePredictor

Images = Float32[np.ndarray, "query joint"]
"""Embeddings of the queries' tiles."""

Prediction = Float32[np.ndarray, "query gene"]

FEWEST_PER_NEIGHBOUR = 4
"""While an epoch is chosen, `k` is at most the number of training spots divided by this."""


@dataclass(frozen=True)
class Retrieval:
    """Which embeddings are searched by which metric, and how neighbours are averaged."""

    vectors: Literal["expression", "image"] = "expression"
    metric: Literal["cosine", "l2"] = "cosine"
    k: int | Literal["all"] = 50
    """Neighbours, or `all` reference rows."""
    weights: str = "mean"
    temperature: float | None = None
    """Of the weights, in the unit of the scores or squared distances; None for their default."""

    @classmethod
    def of(cls, recorded: Mapping[str, Any]) -> "Retrieval":
        """Return the retrieval of a model's record; what an older record lacks has its default."""
        names = ("vectors", "metric", "k", "weights", "temperature")
        return cls(**{name: recorded[name] for name in names if recorded.get(name) is not None})

    def changed(self, *, k: int | Literal["all"] | None, weights: str | None, temperature: float | None) -> "Retrieval":
        """Return the retrieval with what is not None; other weights have their own default temperature."""
        if temperature is None and weights in {None, self.weights}:
            temperature = self.temperature
        return replace(self, k=k or self.k, weights=weights or self.weights, temperature=temperature)

    def averages_as(self, other: "Retrieval") -> bool:
        """Say whether both average the same neighbours by the same weights."""
        own, its = (weighting_of(one.weights, one.temperature).checked(one.temperature) for one in (self, other))
        return (self.k, self.weights, own) == (other.k, other.weights, its)

    def limited(self, rows: int) -> "Retrieval":
        """Return the retrieval with a `k` that suits this number of reference rows; `all` stays."""
        return self if self.k == "all" else replace(self, k=min(self.k, max(1, rows // FEWEST_PER_NEIGHBOUR)))

    @property
    def neighbours(self) -> int | None:
        """Rows to search for; None where every row has a vote. Of all rows, `top1` reads the nearest only.

        Raises ModelError for weights that do not exist, or do not fit the temperature or `k`.
        """
        weighting_of(self.weights, self.temperature)
        if self.k != "all":
            return self.k
        return 1 if all_rows_weights(self.weights, self.temperature) is None else None


@dataclass(frozen=True)
class RetrievalScore:
    """How well one retrieval predicts held-out spots."""

    retrieval: Retrieval
    pcc: float
    """Mean PCC over the genes that are measured and predicted."""
    mse: float
    spread: float
    """sd(predicted) / sd(measured), mean over genes."""


def retrieve(
    model: ContrastivePredictor,
    reference: SpotTable,
    features: Float32[np.ndarray, "query feature"],
    retrieval: Retrieval,
) -> Prediction:
    """Return the expression of tiles as the weighted mean of their `k` nearest reference spots, or of all.

    A spot that has not measured a gene has no vote for it; where no neighbour has measured it, the mean is NaN.
    """
    rows = embed_reference_rows(model, reference, retrieval)
    return rows.retrieve(model.embed_images(features), retrieval)


def score_retrievals(
    model: ContrastivePredictor, reference: SpotTable, held_out: SpotTable, retrievals: Sequence[Retrieval]
) -> list[RetrievalScore]:
    """Score several retrievals of one model on held-out spots, in the order given."""
    scores: dict[int, RetrievalScore] = {}
    for number, predicted in retrieve_each(model, reference, held_out.features, retrievals):
        pcc = validation_pcc(predicted, held_out.expression)
        scores[number] = RetrievalScore(retrievals[number], pcc, *mse_and_spread(predicted, held_out.expression))
    return [scores[number] for number in range(len(retrievals))]


def retrieve_each(
    model: ContrastivePredictor,
    reference: SpotTable,
    features: Float32[np.ndarray, "query feature"],
    retrievals: Sequence[Retrieval],
) -> Iterator[tuple[int, Prediction]]:
    """Yield the position of each retrieval and what it predicts.

    Those of equal vectors and metric follow each other: they share one embedding and one search, for the largest k.
    """
    images = model.embed_images(features)
    for key in dict.fromkeys((one.vectors, one.metric) for one in retrievals):
        own = [number for number, one in enumerate(retrievals) if (one.vectors, one.metric) == key]
        embedded = embed_reference_rows(model, reference, retrievals[own[0]])
        counts = [k for number in own if (k := retrievals[number].neighbours) is not None]
        nearest = embedded.search(images, max(counts)) if counts else None
        for number in own:
            k = retrievals[number].neighbours
            found = None if k is None or nearest is None else (nearest[0][:, :k], nearest[1][:, :k])
            yield number, embedded.mean(images, retrievals[number], found)


@dataclass(frozen=True, eq=False)
class EmbeddedReference:
    """Reference spots in the joint space, in memory, with their expression."""

    vectors: Float32[np.ndarray, "row joint"]
    metric: Literal["cosine", "l2"]
    expression: ExpressionRows
    measured: MeasuredGenes | None

    @classmethod
    def of(
        cls,
        vectors: Float32[np.ndarray, "row joint"],
        expression: Float32[np.ndarray, "row gene"],
        metric: Literal["cosine", "l2"],
    ) -> "EmbeddedReference":
        """Return the rows of these vectors and expression; a gene that a row has not measured is NaN."""
        measured = MeasuredGenes.of_values(expression)
        values = expression if measured is None else np.nan_to_num(expression)
        return cls(vectors, metric, in_memory(values), measured)

    def retrieve(self, images: Images, retrieval: Retrieval) -> Prediction:
        """Return the weighted mean of each query's nearest rows, or of all."""
        k = retrieval.neighbours
        return self.mean(images, retrieval, None if k is None else self.search(images, k))

    def search(self, images: Images, k: int) -> SearchResult:
        """Return scores and rows of the k nearest rows, or of all if there are fewer."""
        return search(self.vectors, images, min(k, len(self.vectors)), metric=self.metric)

    def mean(self, images: Images, retrieval: Retrieval, found: SearchResult | None) -> Prediction:
        """Return the weighted means of the found rows, or of all rows."""
        if found is None:
            return self._mean_of_all(images, retrieval)
        scores, rows = found
        weighting, read = weighting_of(retrieval.weights, retrieval.temperature), scores
        if weighting.input == "squared distances":
            read = squared_distances(images[:, None], self.vectors[rows], weighting.distance)
        weights = weighting.compute(read, retrieval.temperature)
        sums = self.expression.share_of_sum(weights, rows)
        return sums if self.measured is None else self.measured.mean(sums, weights, rows)

    def _mean_of_all(self, images: Images, retrieval: Retrieval) -> Prediction:
        weights = all_rows_weights(retrieval.weights, retrieval.temperature)
        assert weights is not None  # otherwise the nearest row was searched
        rows = WeighedRows(
            metric=self.metric,
            vectors=prepare(self.vectors, self.metric, "reference"),
            lengths=lengths(self.vectors),
            expression=self.expression,
            pattern=None if self.measured is None else self.measured.of_row,
            patterns=1 if self.measured is None else len(self.measured.patterns),
        )
        sums = sum_rows(rows, prepare(images, self.metric, "query"), lengths(images), weights)
        return mean_and_variance(sums, self.measured)[0]


def embed_reference_rows(model: ContrastivePredictor, reference: SpotTable, retrieval: Retrieval) -> EmbeddedReference:
    """Embed reference spots as the retrieval needs them; a model that reads sections needs whole ones."""
    vectors = reference_vectors(model, reference, retrieval)
    return EmbeddedReference.of(vectors, reference.expression, retrieval.metric)


def reference_vectors(
    model: ContrastivePredictor, reference: SpotTable, retrieval: Retrieval
) -> Float32[np.ndarray, "row joint"]:
    """Return the embeddings of reference spots that queries are compared with."""
    if retrieval.vectors == "image":
        return model.embed_images(reference.features)
    return embed_reference(model, reference)
