"""Correlations and means as the published scripts compute them.

They differ from raystp's own scores: a constant gene has no PCC (NaN) here, and each protocol says whether NaN is left
out of a mean or makes it NaN.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Float64, Int64

from raystp.evaluate.published.protocol import FoldOutcome, HeldOutSection, ProtocolScores

Label = Callable[[HeldOutSection], Float64[np.ndarray, "spot gene"]]
"""A test section -> the label of all its spots."""


def pearson(
    predicted: Float[np.ndarray, "spot gene"], measured: Float[np.ndarray, "spot gene"]
) -> Float64[np.ndarray, " gene"]:
    """Return each column's Pearson correlation in float64; NaN where a side is constant, or has a NaN."""
    x, y = np.asarray(predicted, np.float64), np.asarray(measured, np.float64)
    constant = (x == x[:1]).all(axis=0) | (y == y[:1]).all(axis=0)
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    scale = np.sqrt(np.square(x).sum(axis=0)) * np.sqrt(np.square(y).sum(axis=0))
    scale[constant | (scale == 0)] = np.nan
    return np.asarray(np.clip((x * y).sum(axis=0) / scale, -1.0, 1.0))


def concatenated(fold: FoldOutcome, label: Label) -> tuple[Float64[np.ndarray, "spot gene"], ...]:
    """Return predicted and measured expression of all test spots of a fold, section after section."""
    predicted = np.concatenate([np.asarray(one.predicted, np.float64) for one in fold.sections])
    return predicted, np.concatenate([label(one)[one.rows] for one in fold.sections])


def nan_mean(values: Float64[np.ndarray, " _"]) -> float:
    """Return the mean of the values that exist; NaN where none does."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float(np.nan)


def top(values: Float64[np.ndarray, " gene"], count: int) -> Int64[np.ndarray, " k"]:
    """Return the indices of the highest values, highest first; ties by position, NaN last."""
    return np.argsort(-values, kind="stable")[:count]


def mean_of_folds(
    folds: Sequence[Mapping[str, float]], pcc: Sequence[Float64[np.ndarray, " gene"]], notes: Sequence[str] = ()
) -> ProtocolScores:
    """Return the scores whose overall value is the plain mean over folds, and sd with ddof 0; NaN stays NaN."""
    metrics = list(dict.fromkeys(key for fold in folds for key in fold))
    values = {key: np.asarray([fold.get(key, np.nan) for fold in folds]) for key in metrics}
    mean = {key: float(one.mean()) for key, one in values.items()}
    return ProtocolScores(tuple(folds), mean, spread(values), np.stack(pcc), tuple(notes))


def spread(values: Mapping[str, Float64[np.ndarray, " fold"]]) -> dict[str, float]:
    """Return the standard deviation of each metric over folds, ddof 0."""
    return {key: float(one.std()) for key, one in values.items()}
