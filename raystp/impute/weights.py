"""Weights of neighbours from their scores or distances: the weights of each query add to 1.

A formula gives the logarithm of each row's weight, before the weights are divided by their sum. So weights are computed
without overflow, and sums over parts of an index can be merged (`raystp.index.all_rows`). Neighbours are ordered best
first, as a search returns them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64

from raystp.errors import ModelError

_LEAST_SHARE = 1e-12
"""The least d^2 of `inverse_square`, as a share of the query's largest."""

Values = Float32[np.ndarray, "query k"]
LogWeights = Float64[np.ndarray, "query k"]


WeightsName = Literal["mean", "top1", "softmax", "weighted_average", "inverse_square", "inverse_square_l1"]
"""The keys of `WEIGHTS`, for configs."""


def mean(scores: Values) -> Values:
    """Return equal weights (BLEEP's `average`, its best variant; k = 50 in the paper)."""
    return WEIGHTS["mean"].compute(scores)


def top1(scores: Values) -> Values:
    """Return weight 1 for the first neighbour and 0 for the others (BLEEP's `simple`)."""
    return WEIGHTS["top1"].compute(scores)


def softmax(scores: Values, temperature: float = 0.1) -> Values:
    """Return exp(score / temperature), normalised; a higher temperature makes the weights more equal.

    The temperature has the unit of the scores: a cosine, or a squared distance for the metric `l2`. The default suits
    cosines. Raises ModelError for a temperature that is not above 0.
    """
    return WEIGHTS["softmax"].compute(scores, temperature)


def weighted_average(d2: Values, temperature: float = 1.0) -> Values:
    """Return exp(-(d_i^2 - d_1^2 + 1) / temperature), normalised (BLEEP's `weighted_average`, with temperature 1).

    `d2` are squared distances between embeddings that are not normalised. Constant terms cancel in the normalisation.
    """
    return WEIGHTS["weighted_average"].compute(d2, temperature)


def inverse_square(d2: Values) -> Values:
    """Return 1 / d^2, normalised (mclSTExp; there d is an L1 distance on HER2+, and Euclidean elsewhere).

    d^2 is at least 1e-12 times the query's largest, so that an exact hit has a finite weight. With all d^2 at 0 the
    weights are equal.
    """
    return WEIGHTS["inverse_square"].compute(d2)


@dataclass(frozen=True)
class NeighbourWeighting:
    """A formula for the weights, and its input: the search's scores, or squared distances."""

    formula: Callable[[Values, float], LogWeights]
    """Values and a temperature -> logarithms of the weights, up to a constant per query."""
    input: Literal["scores", "squared distances"] = "scores"
    distance: Literal["l2", "l1"] = "l2"
    """Which distances are squared: Euclidean, or sums of absolute differences."""
    temperature: float | None = None
    """The default temperature, in the unit of the input; None for a formula without one."""
    by_rank: bool = False
    """Whether the formula reads the neighbours' order, so that it cannot weigh rows that are not ordered."""

    def log_weights(self, values: Values, temperature: float | None = None) -> LogWeights:
        """Return the logarithms of the weights, up to a constant per query.

        Raises ModelError for a temperature that is not above 0, or that the formula does not have.
        """
        return self.formula(values, self.checked(temperature))

    def compute(self, values: Values, temperature: float | None = None) -> Values:
        """Return the weights; raise ModelError as `log_weights` does."""
        logarithms = self.log_weights(values, temperature)
        weights = np.exp(logarithms - logarithms.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        normalised: np.ndarray = weights.astype(np.float32)
        return normalised

    def checked(self, temperature: float | None) -> float:
        """Return the temperature, or the default; 1 for a formula without one. Raises as `log_weights` does."""
        if temperature is None:
            return 1.0 if self.temperature is None else self.temperature
        if self.temperature is None:
            able = ", ".join(name for name, one in WEIGHTS.items() if one.temperature is not None)
            msg = f"a temperature of {temperature} is set for weights that have none; {able} have one"
            raise ModelError(msg)
        if not temperature > 0:
            msg = f"the temperature of the weights is {temperature}; it must be above 0 ({self.temperature} is usual)"
            raise ModelError(msg)
        return temperature


@dataclass(frozen=True)
class RowWeights:
    """A formula and its temperature, for rows in any order; it is sent to other processes."""

    weighting: NeighbourWeighting
    temperature: float | None = None
    squares: bool = False
    """Whether squared expression is summed too, for a variance."""

    @property
    def input(self) -> Literal["scores", "squared distances"]:
        """What the formula reads."""
        return self.weighting.input

    def log_weights(self, values: Values) -> LogWeights:
        """Return the logarithms of the weights, up to a constant per query."""
        return self.weighting.log_weights(values, self.temperature)


def all_rows_weights(name: str, temperature: float | None = None, *, squares: bool = False) -> RowWeights | None:
    """Return the weights of all rows of an index; None where only the nearest row has a weight (`top1`).

    Raises ModelError as `weighting_of` does, and for L1 distances, which are computed for neighbours only.
    """
    weighting = weighting_of(name, temperature)
    if weighting.distance == "l1":
        msg = f"weights: {name} reads L1 distances of k neighbours; set k to a number, or weights=inverse_square"
        raise ModelError(msg)
    return None if weighting.by_rank else RowWeights(weighting, temperature, squares)


def weighting_of(name: str, temperature: float | None = None) -> NeighbourWeighting:
    """Return the formula of a name; raises ModelError for an unknown one, or a temperature that does not fit it."""
    if name not in WEIGHTS:
        msg = f"weights: {name[:80]!r} is unknown; choose one of {', '.join(WEIGHTS)}"
        raise ModelError(msg)
    WEIGHTS[name].checked(temperature)
    return WEIGHTS[name]


def _equal(values: Values, _: float) -> LogWeights:
    return np.zeros(values.shape)


def _first(values: Values, _: float) -> LogWeights:
    logarithms = np.full(values.shape, -np.inf)
    logarithms[:, 0] = 0.0
    return logarithms


def _rising(scores: Values, temperature: float) -> LogWeights:
    return np.asarray(scores.astype(np.float64) / temperature)


def _falling(d2: Values, temperature: float) -> LogWeights:
    return np.asarray(-d2.astype(np.float64) / temperature)


def _inverse(d2: Values, _: float) -> LogWeights:
    least = _LEAST_SHARE * d2.max(axis=1, keepdims=True).astype(np.float64)
    return np.asarray(-np.log(np.maximum(d2, np.maximum(least, np.finfo(np.float32).tiny))))


WEIGHTS: dict[str, NeighbourWeighting] = {
    "mean": NeighbourWeighting(_equal),
    "top1": NeighbourWeighting(_first, by_rank=True),
    "softmax": NeighbourWeighting(_rising, temperature=0.1),
    "weighted_average": NeighbourWeighting(_falling, input="squared distances", temperature=1.0),
    "inverse_square": NeighbourWeighting(_inverse, input="squared distances"),
    "inverse_square_l1": NeighbourWeighting(_inverse, input="squared distances", distance="l1"),
}
