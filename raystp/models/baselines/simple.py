"""What every model is measured against: means, neighbours and ridge on frozen features, and depth alone.

Each is a pair of functions: `fit_x` returns named arrays, which are the model, and `predict_x` applies them. Ridge has
its own module. Fits compute in float64 and keep float32.
"""

import numpy as np
from jaxtyping import Float, Float32
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import StandardScaler

from raystp.errors import ModelError
from raystp.models.arrays import Arrays

_BLOCK = 1024
"""Queries compared with the references at a time: bounds the memory, never the answer."""


def fit_gene_mean(expression: Float[np.ndarray, "spot gene"]) -> Arrays:
    """Return each gene's training mean."""
    return {"mean": expression.mean(axis=0, dtype=np.float64).astype(np.float32)}


def predict_gene_mean(model: Arrays, features: Float[np.ndarray, "query feature"]) -> Float32[np.ndarray, "query gene"]:
    """Predict the training mean everywhere."""
    return np.repeat(model["mean"][None, :], len(features), axis=0)


def fit_log_total(totals: Float[np.ndarray, "spot"], expression: Float[np.ndarray, "spot gene"]) -> Arrays:
    """Regress each gene on log(1 + total counts) of its spot, by least squares, with an intercept.

    It reads no image but the query's own measured depth: what a model must beat before its score speaks of tissue.
    """
    line = LinearRegression().fit(_log(totals), expression.astype(np.float64))
    slope, intercept = line.coef_[:, 0], np.broadcast_to(line.intercept_, line.coef_.shape[:1])
    return {"slope": slope.astype(np.float32), "intercept": intercept.astype(np.float32)}


def predict_log_total(model: Arrays, totals: Float[np.ndarray, "query"]) -> Float32[np.ndarray, "query gene"]:
    """Predict from the total counts measured at each query."""
    return (_log(totals) * model["slope"] + model["intercept"]).astype(np.float32)


def fit_knn(
    features: Float[np.ndarray, "spot feature"], expression: Float[np.ndarray, "spot gene"], *, k: int = 50
) -> Arrays:
    """Keep the training spots for a mean over the `k` nearest by cosine of standardised features.

    Raises ModelError where there are fewer than `k` spots.
    """
    if not 1 <= k <= len(features):
        msg = f"a mean over the {k} nearest spots was asked for, there are {len(features)}: choose k from 1 to that"
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
    """Predict the mean expression of each query's nearest training spots; among equals for the last place, any one."""
    directions = _directions((features - model["mean"]) / model["scale"])
    k = int(model["k"])
    out = np.empty((len(features), model["expression"].shape[1]), dtype=np.float32)
    for start in range(0, len(features), _BLOCK):
        distance = -(directions[start : start + _BLOCK] @ model["references"].T)
        nearest = np.argpartition(distance, k - 1, axis=1)[:, :k]
        out[start : start + _BLOCK] = model["expression"][nearest].mean(axis=1)
    return out


def standardiser(
    features: Float[np.ndarray, "spot feature"],
) -> tuple[Float[np.ndarray, "feature"], Float[np.ndarray, "feature"]]:
    """Return the mean and the standard deviation of each feature; a constant feature has deviation 1."""
    scaler = StandardScaler().fit(features.astype(np.float64))
    return scaler.mean_, scaler.scale_


def _directions(values: Float[np.ndarray, "row feature"]) -> Float32[np.ndarray, "row feature"]:
    length = np.linalg.norm(values, axis=1, keepdims=True)
    directions: np.ndarray = (values / np.maximum(length, np.finfo(np.float32).tiny)).astype(np.float32)
    return directions


def _log(totals: Float[np.ndarray, "spot"]) -> Float[np.ndarray, "spot 1"]:
    return np.log1p(totals.astype(np.float64))[:, None]
