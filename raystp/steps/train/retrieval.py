"""Expression retrieved from reference spots held in memory: exact search, then a weighted mean.

The same retrieval as through a reference index: a validation score and a permutation null are computed with it.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32

from raystp.expression.training_set import SpotTable
from raystp.impute.weights import WEIGHTS
from raystp.index.expression.measured import MeasuredGenes
from raystp.index.expression.shard import in_memory
from raystp.index.search.exact import search
from raystp.index.search.score import squared_distances
from raystp.models.predict import embed_reference
from raystp.models.predictor import ContrastivePredictor


@dataclass(frozen=True)
class Retrieval:
    """Which embeddings are searched by which metric, and how neighbours are averaged."""

    vectors: Literal["expression", "image"] = "expression"
    metric: Literal["cosine", "l2"] = "cosine"
    k: int = 50
    weights: str = "mean"


def retrieve(
    model: ContrastivePredictor,
    reference: SpotTable,
    features: Float32[np.ndarray, "query feature"],
    retrieval: Retrieval,
) -> Float32[np.ndarray, "query gene"]:
    """Return the expression of tiles as the weighted mean of their `k` nearest reference spots.

    A spot that has not measured a gene has no vote for it; where no neighbour has measured it, the mean is NaN.
    """
    images = model.embed_images(features)
    if retrieval.vectors == "image":
        vectors = model.embed_images(reference.features)
    else:
        vectors = embed_reference(model, reference)
    scores, rows = search(vectors, images, min(retrieval.k, len(vectors)), metric=retrieval.metric)
    weighting = WEIGHTS[retrieval.weights]
    read = scores
    if weighting.input == "squared distances":
        read = squared_distances(images[:, None], vectors[rows], weighting.distance)
    weights, measured = weighting.compute(read), MeasuredGenes.of_values(reference.expression)
    if measured is None:
        return in_memory(reference.expression).share_of_sum(weights, rows)
    sums = in_memory(np.nan_to_num(reference.expression)).share_of_sum(weights, rows)
    return measured.mean(sums, weights, rows)
