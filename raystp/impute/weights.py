"""Weights of k neighbours from their scores: the weights of each query add to 1.

Neighbours are ordered best first, as a search returns them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64

from raystp.errors import ModelError

_LEAST_SHARE = 1e-12
"""The least d^2 of `inverse_square`, as a share of the query's largest."""


def mean(scores: Float32[np.ndarray, "query k"]) -> Float32[np.ndarray, "query k"]:
    """Return equal weights (BLEEP's `average`, its best variant; k = 50 in the paper)."""
    return np.full(scores.shape, 1.0 / scores.shape[1], np.float32)


def top1(scores: Float32[np.ndarray, "query k"]) -> Float32[np.ndarray, "query k"]:
    """Return weight 1 for the first neighbour and 0 for the others (BLEEP's `simple`)."""
    weights = np.zeros(scores.shape, np.float32)
    weights[:, 0] = 1.0
    return weights


def softmax(scores: Float32[np.ndarray, "query k"], temperature: float = 0.1) -> Float32[np.ndarray, "query k"]:
    """Return exp(score / temperature), normalised; a higher temperature makes the weights more equal.

    The default suits cosines. Raises ModelError for a temperature that is not above 0.
    """
    if not temperature > 0:
        msg = f"the temperature of softmax weights is {temperature}; it must be above 0 (0.1 is usual)"
        raise ModelError(msg)
    return _normalised(scores.astype(np.float64) / temperature)


def weighted_average(d2: Float32[np.ndarray, "query k"]) -> Float32[np.ndarray, "query k"]:
    """Return exp(-(d_i^2 - d_1^2 + 1)), normalised (BLEEP's `weighted_average`).

    `d2` are squared distances between embeddings that are not normalised. Constant terms cancel in the normalisation,
    so the smallest d^2 is subtracted rather than d_1^2: the same weights, without overflow.
    """
    return _normalised(-d2.astype(np.float64))


def inverse_square(d2: Float32[np.ndarray, "query k"]) -> Float32[np.ndarray, "query k"]:
    """Return 1 / d^2, normalised (mclSTExp; there d is an L1 distance on HER2+, and Euclidean elsewhere).

    d^2 is at least 1e-12 times the query's largest, so that an exact hit has a finite weight. With all d^2 at 0 the
    weights are equal.
    """
    largest = d2.max(axis=1, keepdims=True).astype(np.float64)
    relative = np.maximum(d2 / np.where(largest > 0, largest, 1.0), _LEAST_SHARE)
    weights: np.ndarray = 1 / relative
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


@dataclass(frozen=True)
class NeighbourWeighting:
    """A formula for the weights, and its input: the search's scores, or squared distances."""

    compute: Callable[[Float32[np.ndarray, "query k"]], Float32[np.ndarray, "query k"]]
    input: Literal["scores", "squared distances"] = "scores"
    distance: Literal["l2", "l1"] = "l2"
    """Which distances are squared: Euclidean, or sums of absolute differences."""


WEIGHTS: dict[str, NeighbourWeighting] = {
    "mean": NeighbourWeighting(mean),
    "top1": NeighbourWeighting(top1),
    "softmax": NeighbourWeighting(softmax),
    "weighted_average": NeighbourWeighting(weighted_average, input="squared distances"),
    "inverse_square": NeighbourWeighting(inverse_square, input="squared distances"),
    "inverse_square_l1": NeighbourWeighting(inverse_square, input="squared distances", distance="l1"),
}


def _normalised(logits: Float64[np.ndarray, "query k"]) -> Float32[np.ndarray, "query k"]:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    normalised: np.ndarray = weights.astype(np.float32)
    return normalised
