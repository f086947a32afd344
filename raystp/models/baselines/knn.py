"""Mean expression of the nearest training tiles, by cosine of their frozen features."""

import numpy as np
from jaxtyping import Float, Float32

from raystp.errors import ModelError
from raystp.missing import equal_columns
from raystp.models.arrays import Arrays, SpotArrays
from raystp.models.baselines.method import KnnOptions
from raystp.models.baselines.predictor import BaselinePredictor
from raystp.models.layers import standardiser
from raystp.models.method import ModelMeta

_BLOCK = 1024
"""Queries compared with the references at a time: limits the memory and does not change the prediction."""


def fit(options: KnnOptions, train: SpotArrays, *, seed: int) -> Arrays:  # noqa: ARG001 -- the same for all baselines
    """Return the training spots as references; raises ModelError if there are fewer than `k`."""
    return fit_knn(train.features, train.expression, k=options.k)


def open_predictor(arrays: Arrays, meta: ModelMeta) -> BaselinePredictor:
    """Return a stored model, ready to predict."""
    return BaselinePredictor("knn", meta["genes"], meta["d_image"], arrays, predict_knn)


def fit_knn(
    features: Float[np.ndarray, "spot feature"], expression: Float[np.ndarray, "spot gene"], *, k: int = 50
) -> Arrays:
    """Return the training spots as references; the `k` nearest by cosine of standardised features are averaged.

    Raises ModelError if there are fewer than `k` spots.
    """
    if not 1 <= k <= len(features):
        msg = f"k must be from 1 to the number of training spots, {len(features)}, got {k}: set knn.k"
        raise ModelError(msg)
    mean, scale = standardiser(features)
    return {
        "mean": mean.astype(np.float32),
        "scale": scale.astype(np.float32),
        "references": _directions((features - mean) / scale),
        "expression": expression.astype(np.float32),
        "k": np.array(k, dtype=np.int64),
    }


def predict_knn(model: Arrays, features: Float[np.ndarray, "query feature"]) -> Float32[np.ndarray, "query gene"]:
    """Predict the mean expression of each query's `k` nearest training spots; a tie for the last one is arbitrary.

    Each gene is averaged over the `k` nearest of the spots that measured it, or over all of them where they are fewer.
    """
    directions = _directions((features - model["mean"]) / model["scale"])
    expression = model["expression"]
    parts = equal_columns(~np.isnan(expression))
    out = np.full((len(features), expression.shape[1]), np.nan, dtype=np.float32)
    for start in range(0, len(features), _BLOCK):
        distance = -(directions[start : start + _BLOCK] @ model["references"].T)
        for rows, genes in parts:
            if len(rows) == len(expression):
                part, own = expression if len(genes) == expression.shape[1] else expression[:, genes], distance
            else:
                part, own = expression[np.ix_(rows, genes)], distance[:, rows]
            out[start : start + _BLOCK, genes] = _mean_of_nearest(own, part, int(model["k"]))
    return out


def _mean_of_nearest(
    distance: Float32[np.ndarray, "query row"], expression: Float32[np.ndarray, "row gene"], k: int
) -> Float32[np.ndarray, "query gene"]:
    k = min(k, distance.shape[1])
    nearest = np.argpartition(distance, k - 1, axis=1)[:, :k]
    mean: np.ndarray = expression[nearest].mean(axis=1)
    return mean


def _directions(values: Float[np.ndarray, "row feature"]) -> Float32[np.ndarray, "row feature"]:
    length = np.linalg.norm(values, axis=1, keepdims=True)
    directions: np.ndarray = (values / np.maximum(length, np.finfo(np.float32).tiny)).astype(np.float32)
    return directions
