"""Ridge regression on frozen features: a strong baseline, which deep models often do not exceed.

One eigendecomposition per fold gives the weights for every alpha and every gene. With X the standardised features
(n x d) and X'X = V diag(l) V', the weights are V diag(1 / (l + alpha)) V'X'Y; with fewer rows than features the same
follows from XX' = U diag(l) U' as X'U diag(1 / (l + alpha)) U'Y. Both are `basis @ (right / (l + alpha))`.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Shaped
from sklearn.model_selection import KFold, LeaveOneGroupOut

from raystp.errors import ModelError
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
    equal alphas the smallest is chosen. The arrays include alpha and the errors of all alphas. Raises ModelError below
    2 spots.
    """
    if len(features) < 2:  # noqa: PLR2004 -- one to train on, one to hold out
        msg = f"the cross-validation of ridge needs 2 or more spots, got {len(features)}: add measured spots"
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
