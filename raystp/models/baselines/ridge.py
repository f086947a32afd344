"""Ridge regression on frozen features: a strong baseline, which deep models often do not exceed.

A gene that a section has not measured is fitted on the spots that measured it: genes with the same spots are a group,
with one decomposition (`spectrum`). All groups have the same alpha.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float32, Float64, Shaped

from raystp.missing import equal_columns
from raystp.models.arrays import Arrays, SpotArrays
from raystp.models.baselines.folds import columns, cross_validate
from raystp.models.baselines.predictor import BaselinePredictor
from raystp.models.baselines.spectrum import Spectrum
from raystp.models.layers import standardiser
from raystp.models.method import ModelMeta, NoOptions

ALPHAS = tuple(float(alpha) for alpha in np.logspace(-2, 8, 41))
"""Candidates, four a decade, for features of deviation 1. The range is wide: shuffled labels choose a large alpha."""


def fit(options: NoOptions, train: SpotArrays, *, seed: int) -> Arrays:  # noqa: ARG001 -- the same for all baselines
    """Return the weights; the penalty is chosen by cross-validation over sections."""
    return fit_ridge(train.features, train.expression, groups=train.group, seed=seed)


def open_predictor(arrays: Arrays, meta: ModelMeta) -> BaselinePredictor:
    """Return a stored model, ready to predict."""
    return BaselinePredictor("ridge", meta["genes"], meta["d_image"], arrays, predict_ridge)


def fit_ridge(
    features: Float[np.ndarray, "spot feature"],
    expression: Float[np.ndarray, "spot gene"],
    *,
    groups: Shaped[np.ndarray, "spot"] | None = None,
    seed: int = 0,
    alphas: tuple[float, ...] = ALPHAS,
) -> Arrays:
    """Fit all genes with the one alpha of the least cross-validated squared error, mean over spots and genes.

    The folds are those of `cross_validate`. Features are standardised within each fold's training part; the intercept
    is the training mean, unpenalised. Of equal alphas the smallest is chosen. A missing value (NaN) is in no sum. The
    arrays include alpha and the errors of all alphas. Raises ModelError below 2 spots.
    """
    mse = cross_validate(
        expression,
        groups,
        seed,
        lambda fitted, held, genes: Spectrum.of(features[fitted], columns(expression, fitted, genes)).squared_errors(
            features[held], columns(expression, held, genes), alphas
        ),
    )
    alpha = alphas[int(np.argmin(mse))]
    fitted = weights_by_gene_group(features, expression, lambda spectrum: spectrum.weights(alpha))
    return {**fitted, "alpha": np.array(alpha), "alphas": np.array(alphas), "cv_mse": mse}


def weights_by_gene_group(
    features: Float[np.ndarray, "spot feature"],
    expression: Float[np.ndarray, "spot gene"],
    weights_of: Callable[[Spectrum], Float64[np.ndarray, "feature gene"]],
) -> Arrays:
    """Return mean, scale, weights and intercept for `predict_ridge`, each group of genes fitted on its own spots."""
    mean, scale = standardiser(features)
    weights, intercept = np.zeros((features.shape[1], expression.shape[1])), np.full(expression.shape[1], np.nan)
    for rows, genes in equal_columns(~np.isnan(expression)):
        if len(rows):
            own = Spectrum.of(features[rows], columns(expression, rows, genes))
            # Each group has its own standardisation; the stored one is that of all spots.
            weights[:, genes] = weights_of(own) * (scale / own.scale)[:, None]
            intercept[genes] = own.intercept + ((mean - own.mean) / scale) @ weights[:, genes]
    return {
        "mean": mean.astype(np.float32),
        "scale": scale.astype(np.float32),
        "weights": weights.astype(np.float32),
        "intercept": intercept.astype(np.float32),
    }


def predict_ridge(model: Arrays, features: Float[np.ndarray, "query feature"]) -> Float32[np.ndarray, "query gene"]:
    """Predict expression from features of the same encoder."""
    x = ((features - model["mean"]) / model["scale"]).astype(np.float32)
    return x @ model["weights"] + model["intercept"]
