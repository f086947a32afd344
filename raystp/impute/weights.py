"""From the scores of k neighbours to their weights: each line adds to 1.

Neighbours come best first, as a search gives them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64

from raystp.errors import ModelError


def mean(scores: Float32[np.ndarray, "query k"]) -> Float32[np.ndarray, "query k"]:
    """Weigh all neighbours alike (BLEEP's `average`, its best variant; k = 50 in the paper)."""
    return np.full(scores.shape, 1.0 / scores.shape[1], np.float32)


def top1(scores: Float32[np.ndarray, "query k"]) -> Float32[np.ndarray, "query k"]:
    """Take the first neighbour alone (BLEEP's `simple`)."""
    weights = np.zeros(scores.shape, np.float32)
    weights[:, 0] = 1.0
    return weights


def softmax(scores: Float32[np.ndarray, "query k"], temperature: float = 0.1) -> Float32[np.ndarray, "query k"]:
    """Weigh by exp(score / temperature): a higher score weighs more, a higher temperature evens the weights out.

    The default suits cosines. Raises ModelError for a temperature that is not above 0.
    """
    if not temperature > 0:
        msg = f"the temperature of softmax weights is {temperature}: any number above 0 would do, 0.1 is usual"
        raise ModelError(msg)
    return _normalised(scores.astype(np.float64) / temperature)


def bleep(d2: Float32[np.ndarray, "query k"]) -> Float32[np.ndarray, "query k"]:
    """Weigh by exp(-(d_i^2 - d_1^2 + 1)), d^2 between embeddings that are not normalised (BLEEP's `weighted_average`).

    What does not depend on i cancels when the weights are made to add to 1. The first neighbour by cosine need not be
    the nearest, so the smallest d^2 is taken off instead of d_1^2: the same weights, and nothing overflows.
    """
    return _normalised(-d2.astype(np.float64))


@dataclass(frozen=True)
class NeighbourWeighting:
    """A way to weigh neighbours, and what it reads: the search's scores, or squared distances."""

    weigh: Callable[[Float32[np.ndarray, "query k"]], Float32[np.ndarray, "query k"]]
    reads: Literal["scores", "squared distances"] = "scores"


WEIGHTS: dict[str, NeighbourWeighting] = {
    "mean": NeighbourWeighting(mean),
    "top1": NeighbourWeighting(top1),
    "softmax": NeighbourWeighting(softmax),
    "bleep": NeighbourWeighting(bleep, reads="squared distances"),
}


def _normalised(logits: Float64[np.ndarray, "query k"]) -> Float32[np.ndarray, "query k"]:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    found: np.ndarray = weights.astype(np.float32)
    return found
