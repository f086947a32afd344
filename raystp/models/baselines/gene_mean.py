"""The training mean of each gene: a prediction that does not use the image."""

import numpy as np
from jaxtyping import Float, Float32

from raystp.missing import column_means
from raystp.models.arrays import Arrays, SpotArrays
from raystp.models.baselines.predictor import BaselinePredictor
from raystp.models.method import ModelMeta, NoOptions


def fit(options: NoOptions, train: SpotArrays, *, seed: int) -> Arrays:  # noqa: ARG001 -- the same for all baselines
    """Return the means of the training spots."""
    return fit_gene_mean(train.expression)


def open_predictor(arrays: Arrays, meta: ModelMeta) -> BaselinePredictor:
    """Return a stored model, ready to predict."""
    return BaselinePredictor("gene_mean", meta["genes"], meta["d_image"], arrays, predict_gene_mean)


def fit_gene_mean(expression: Float[np.ndarray, "spot gene"]) -> Arrays:
    """Return each gene's mean over the training spots that measured it."""
    return {"mean": column_means(expression).astype(np.float32)}


def predict_gene_mean(model: Arrays, features: Float[np.ndarray, "query feature"]) -> Float32[np.ndarray, "query gene"]:
    """Predict the training mean everywhere."""
    return np.repeat(model["mean"][None, :], len(features), axis=0)
