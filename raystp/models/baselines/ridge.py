"""Ridge regression on frozen features: the baseline that a deep model has to beat, and often does not.

One eigendecomposition per fold serves every alpha and every gene. With X the standardised features (n x d) and
X'X = V diag(l) V', the weights are V diag(1 / (l + alpha)) V'X'Y; with fewer rows than features the same follows from
XX' = U diag(l) U' as X'U diag(1 / (l + alpha)) U'Y. Both are `basis @ (right / (l + alpha))`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Shaped
from sklearn.model_selection import KFold, LeaveOneGroupOut

from raystp.errors import ModelError
from raystp.models.arrays import Arrays
from raystp.models.baselines.predictor import BaselinePredictor
from raystp.models.method import NoOptions, SpotArrays
from raystp.models.standardise import standardiser

ALPHAS = tuple(float(alpha) for alpha in np.logspace(-2, 8, 41))
"""Candidates, four a decade, for features standardised to deviation 1; wide enough that shuffled labels find an end."""

FOLDS = 5
MIN_GROUPS = 3
"""With fewer sections than this, leaving one out would fit alpha to a single other section."""


def fit(options: NoOptions, train: SpotArrays, *, seed: int) -> Arrays:  # noqa: ARG001 -- the same for all baselines
    """Return the weights; sections are the folds that choose the penalty."""
    return fit_ridge(train.features, train.expression, groups=train.group, seed=seed)


def open_predictor(arrays: Arrays, meta: Mapping[str, Any]) -> BaselinePredictor:
    """Return a stored model, ready to predict."""
    return BaselinePredictor("ridge", meta["genes"], meta["d_image"], arrays, predict_ridge)


@dataclass(frozen=True)
class _Spectrum:
    """A training set, decomposed: weights for any alpha are one matrix product away."""

    mean: Float64[np.ndarray, "feature"]
    scale: Float64[np.ndarray, "feature"]
    intercept: Float64[np.ndarray, "gene"]
    basis: Float64[np.ndarray, "feature rank"]
    values: Float64[np.ndarray, "rank"]
    right: Float64[np.ndarray, "rank gene"]

    @classmethod
    def of(cls, features: Float[np.ndarray, "spot feature"], expression: Float[np.ndarray, "spot gene"]) -> "_Spectrum":
        mean, scale = standardiser(features)
        intercept = expression.mean(axis=0, dtype=np.float64)
        x, y = (features - mean) / scale, expression - intercept
        if x.shape[0] >= x.shape[1]:
            values, basis = np.linalg.eigh(x.T @ x)
            right = basis.T @ (x.T @ y)
        else:
            values, vectors = np.linalg.eigh(x @ x.T)
            basis, right = x.T @ vectors, vectors.T @ y
        return cls(mean, scale, intercept, basis, np.maximum(values, 0.0), right)

    def weights(self, alpha: float) -> Float64[np.ndarray, "feature gene"]:
        weights: np.ndarray = self.basis @ (self.right / (self.values + alpha)[:, None])
        return weights

    def squared_errors(
        self,
        features: Float[np.ndarray, "query feature"],
        expression: Float[np.ndarray, "query gene"],
        alphas: tuple[float, ...],
    ) -> Float64[np.ndarray, "alpha"]:
        """Return the summed squared error on other spots for each alpha.

        With D = diag(1 / (l + alpha)), |Y - L D R|^2 = |Y|^2 - 2 d.q + d'Qd: after q and Q an alpha costs rank^2.
        """
        left = ((features - self.mean) / self.scale) @ self.basis
        y = expression - self.intercept
        linear = ((left.T @ y) * self.right).sum(axis=1)
        square = (left.T @ left) * (self.right @ self.right.T)
        shrink = 1 / (self.values[None, :] + np.array(alphas)[:, None])
        errors: np.ndarray = (y**2).sum() - 2 * shrink @ linear + ((shrink @ square) * shrink).sum(axis=1)
        return errors


def fit_ridge(
    features: Float[np.ndarray, "spot feature"],
    expression: Float[np.ndarray, "spot gene"],
    *,
    groups: Shaped[np.ndarray, "spot"] | None = None,
    seed: int = 0,
    alphas: tuple[float, ...] = ALPHAS,
) -> Arrays:
    """Fit all genes with the one alpha of the least cross-validated squared error, mean over spots and genes.

    The folds are the `groups` (sections, patients) where there are 3 or more, else 5 random parts drawn from `seed`.
    Features are standardised within each fold's training part; the intercept is the training mean, unpenalised. Of
    equal alphas the smallest. The arrays hold alpha and the error curve too. Raises ModelError below 2 spots.
    """
    if len(features) < 2:  # noqa: PLR2004 -- cross-validation holds one out and learns from another
        msg = f"ridge chooses its alpha by cross-validation and needs 2 spots at least, there are {len(features)}"
        raise ModelError(msg)
    errors = np.zeros(len(alphas))
    for train, test in _folds(len(features), groups, seed):
        spectrum = _Spectrum.of(features[train], expression[train])
        errors += spectrum.squared_errors(features[test], expression[test], alphas)
    alpha = alphas[int(np.argmin(errors))]
    whole = _Spectrum.of(features, expression)
    return {
        "mean": whole.mean.astype(np.float32),
        "scale": whole.scale.astype(np.float32),
        "weights": whole.weights(alpha).astype(np.float32),
        "intercept": whole.intercept.astype(np.float32),
        "alpha": np.array(alpha),
        "alphas": np.array(alphas),
        "cv_mse": errors / expression.size,
    }


def predict_ridge(model: Arrays, features: Float[np.ndarray, "query feature"]) -> Float32[np.ndarray, "query gene"]:
    """Predict expression from features of the same encoder."""
    x = ((features - model["mean"]) / model["scale"]).astype(np.float32)
    return x @ model["weights"] + model["intercept"]


def _folds(
    rows: int, groups: Shaped[np.ndarray, "spot"] | None, seed: int
) -> list[tuple[Int[np.ndarray, "train"], Int[np.ndarray, "test"]]]:
    if groups is not None and len(np.unique(groups)) >= MIN_GROUPS:
        return list(LeaveOneGroupOut().split(np.empty((rows, 1)), groups=groups))
    return list(KFold(min(FOLDS, rows), shuffle=True, random_state=seed).split(np.empty((rows, 1))))
