"""Ridge regression on frozen features: a strong baseline, which deep models often do not exceed.

One eigendecomposition per fold gives the weights for every alpha and every gene. With X the standardised features
(n x d) and X'X = V diag(l) V', the weights are V diag(1 / (l + alpha)) V'X'Y; with fewer rows than features the same
follows from XX' = U diag(l) U' as X'U diag(1 / (l + alpha)) U'Y. Both are `basis @ (right / (l + alpha))`.

A gene that a section has not measured is fitted on the spots that measured it: genes with the same spots are a group,
with one decomposition. All groups have the same alpha.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Shaped
from sklearn.model_selection import KFold, LeaveOneGroupOut

from raystp.errors import ModelError
from raystp.missing import equal_columns
from raystp.models.arrays import Arrays, SpotArrays
from raystp.models.baselines.predictor import BaselinePredictor
from raystp.models.layers import standardiser
from raystp.models.method import ModelMeta, NoOptions

ALPHAS = tuple(float(alpha) for alpha in np.logspace(-2, 8, 41))
"""Candidates, four a decade, for features of deviation 1. The range is wide: shuffled labels choose a large alpha."""

FOLDS = 5
"""Random folds, where the sections are too few to be the folds."""

MIN_GROUPS = 3
"""Fewest sections that are used as folds: with two, alpha would be fitted to a single other section."""


def fit(options: NoOptions, train: SpotArrays, *, seed: int) -> Arrays:  # noqa: ARG001 -- the same for all baselines
    """Return the weights; the penalty is chosen by cross-validation over sections."""
    return fit_ridge(train.features, train.expression, groups=train.group, seed=seed)


def open_predictor(arrays: Arrays, meta: ModelMeta) -> BaselinePredictor:
    """Return a stored model, ready to predict."""
    return BaselinePredictor("ridge", meta["genes"], meta["d_image"], arrays, predict_ridge)


@dataclass(frozen=True)
class _Spectrum:
    """Eigendecomposition of a training set: the weights for an alpha cost one matrix product."""

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

    The folds are the `groups` (sections, patients) if there are 3 or more, else 5 random parts drawn from `seed`.
    Features are standardised within each fold's training part; the intercept is the training mean, unpenalised. Of
    equal alphas the smallest is chosen. A missing value (NaN) is in no sum; a gene that is only measured in the fold
    that is held out is not in this fold's error. The arrays include alpha and the errors of all alphas. Raises
    ModelError below 2 spots.
    """
    if len(features) < 2:  # noqa: PLR2004 -- one to train on, one to hold out
        msg = f"the cross-validation of ridge needs 2 or more spots, got {len(features)}: add measured spots"
        raise ModelError(msg)
    errors, values = _errors(features, expression, _folds(len(features), groups, seed), alphas)
    if not values:  # each gene is measured in one section only: no other section is left to hold out
        errors, values = _errors(features, expression, _folds(len(features), None, seed), alphas)
    alpha = alphas[int(np.argmin(errors))]
    mean, scale = standardiser(features)
    weights, intercept = np.zeros((features.shape[1], expression.shape[1])), np.full(expression.shape[1], np.nan)
    for rows, genes in equal_columns(~np.isnan(expression)):
        if len(rows):
            own = _Spectrum.of(features[rows], _columns(expression, rows, genes))
            # Each group has its own standardisation; the stored one is that of all spots.
            weights[:, genes] = own.weights(alpha) * (scale / own.scale)[:, None]
            intercept[genes] = own.intercept + ((mean - own.mean) / scale) @ weights[:, genes]
    return {
        "mean": mean.astype(np.float32),
        "scale": scale.astype(np.float32),
        "weights": weights.astype(np.float32),
        "intercept": intercept.astype(np.float32),
        "alpha": np.array(alpha),
        "alphas": np.array(alphas),
        "cv_mse": errors / max(values, 1),
    }


Fold = tuple[Int[np.ndarray, "_"], Int[np.ndarray, "_"]]
"""Rows of the training part, and rows that are held out."""


def _errors(
    features: Float[np.ndarray, "spot feature"],
    expression: Float[np.ndarray, "spot gene"],
    folds: list[Fold],
    alphas: tuple[float, ...],
) -> tuple[Float64[np.ndarray, "alpha"], int]:
    """Return the summed squared error of each alpha over all folds, and the number of values in it."""
    errors, values, parts = np.zeros(len(alphas)), 0, equal_columns(~np.isnan(expression))
    for train, test in folds:
        for rows, genes in parts:
            fitted, held = (side[np.isin(side, rows)] for side in (train, test))
            if len(fitted) and len(held):
                spectrum = _Spectrum.of(features[fitted], _columns(expression, fitted, genes))
                errors += spectrum.squared_errors(features[held], _columns(expression, held, genes), alphas)
                values += len(held) * len(genes)
    return errors, values


def _columns(
    expression: Float[np.ndarray, "spot gene"], rows: Int[np.ndarray, "_"], genes: Int[np.ndarray, "_"]
) -> Float[np.ndarray, "row column"]:
    columns: np.ndarray = expression[rows] if len(genes) == expression.shape[1] else expression[np.ix_(rows, genes)]
    return columns


def predict_ridge(model: Arrays, features: Float[np.ndarray, "query feature"]) -> Float32[np.ndarray, "query gene"]:
    """Predict expression from features of the same encoder."""
    x = ((features - model["mean"]) / model["scale"]).astype(np.float32)
    return x @ model["weights"] + model["intercept"]


def _folds(rows: int, groups: Shaped[np.ndarray, "spot"] | None, seed: int) -> list[Fold]:
    if groups is not None and len(np.unique(groups)) >= MIN_GROUPS:
        return list(LeaveOneGroupOut().split(np.empty((rows, 1)), groups=groups))
    return list(KFold(min(FOLDS, rows), shuffle=True, random_state=seed).split(np.empty((rows, 1))))
