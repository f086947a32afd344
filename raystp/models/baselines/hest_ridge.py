"""hest-bench's regression, with scikit-learn itself: `StandardScaler`, `PCA` and a `Ridge` without intercept.

Source: HEST-1k (Jaume et al. 2024), `hest.bench`. The features are scaled and reduced in their own float32. That code
puts the components into a torch tensor, which scikit-learn reads as float64: the ridge on them is in float64 too. A
ridge in float32 moves the score by 1e-5 to 1e-4, since the penalty is tiny and small components weigh much. Without PCA
that code scales nothing (`scale: false`). The ridge is `Ridge(solver="lsqr", fit_intercept=False, max_iter=1000,
random_state=1)` at a tolerance of 1e-4, so a prediction has no level: it is meant for correlations, not for errors. A
closed form, another seed or another tolerance moves a published score in its third or fourth digit. Stored are plain
arrays; a predictor puts them into scikit-learn's objects, and predicts with the library's own arithmetic.

A gene that a section has not measured is fitted on the spots that measured it; scaler and PCA read all spots.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, Shaped
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from raystp.missing import equal_columns
from raystp.models.arrays import Arrays, SpotArrays
from raystp.models.baselines.folds import Rows, columns, cross_validate
from raystp.models.baselines.method import HestRidgeOptions
from raystp.models.baselines.predictor import BaselinePredictor
from raystp.models.method import ModelMeta

ALPHAS = tuple(float(alpha) for alpha in np.logspace(-2, 6, 17))
"""Candidates of `alpha: cv`, two a decade."""

MOST = 20.0
"""The largest label that can be log1p of a whole number of counts."""

SEED = 1
"""`random_state` of hest-bench, for PCA and ridge."""


def fit(options: HestRidgeOptions, train: SpotArrays, *, seed: int) -> Arrays:
    """Return scaler, components and coefficients; `seed` draws only the folds of `alpha: cv`."""
    return fit_hest_ridge(train.features, train.expression, options, groups=train.group, seed=seed)


def open_predictor(arrays: Arrays, meta: ModelMeta) -> BaselinePredictor:
    """Return a stored model, ready to predict."""
    return BaselinePredictor("hest_ridge", meta["genes"], meta["d_image"], arrays, predict_hest_ridge)


def fit_hest_ridge(
    features: Float[np.ndarray, "spot feature"],
    expression: Float[np.ndarray, "spot gene"],
    options: HestRidgeOptions,
    *,
    groups: Shaped[np.ndarray, "spot"] | None = None,
    seed: int = 0,
) -> Arrays:
    """Fit all genes with one alpha.

    `alpha: hest` is 100 / (dimensions * genes), of the features after PCA. `alpha: cv` is that of the highest PCC, mean
    over genes and held-out spots of the folds of `cross_validate`; the arrays then have the PCC of each. Of equal
    alphas the smallest is chosen. Raises ModelError below 2 spots for `cv`.
    """
    space, x = Space.fit(features, options)
    chosen = dict[str, np.ndarray]()
    if options.alpha == "cv":
        mse = cross_validate(expression, groups, seed, _Errors(features, expression, options))
        alpha = ALPHAS[int(np.argmin(mse))]
        chosen = {"alphas": np.array(ALPHAS), "cv_pcc": 1 - mse / 2}
    else:
        alpha = 100 / (x.shape[1] * expression.shape[1]) if options.alpha == "hest" else float(options.alpha)
    weights = np.full((expression.shape[1], x.shape[1]), np.nan, x.dtype)
    for rows, genes in equal_columns(~np.isnan(expression)):
        if len(rows):
            own = x if len(rows) == len(x) else x[rows]  # a copy may have another memory order, and round otherwise
            weights[genes] = _ridge(own, _exact(columns(expression, rows, genes)), alpha)
    return {**space.arrays(), **chosen, "weights": weights, "alpha": np.array(alpha)}


def predict_hest_ridge(
    model: Arrays, features: Float[np.ndarray, "query feature"]
) -> Float32[np.ndarray, "query gene"]:
    """Predict expression, without its level, from features of the same encoder."""
    ridge = Ridge(fit_intercept=False)
    ridge.coef_, ridge.intercept_ = model["weights"], 0.0
    predicted: np.ndarray = ridge.predict(Space.stored(model).apply(features))
    return predicted.astype(np.float32, copy=False)


@dataclass(frozen=True)
class Space:
    """Features, scaled and reduced to their principal components where these are asked for."""

    scaler: StandardScaler | None
    pca: PCA | None

    @classmethod
    def fit(
        cls, features: Float[np.ndarray, "spot feature"], options: HestRidgeOptions
    ) -> tuple["Space", Float[np.ndarray, "spot dim"]]:
        """Fit it; also return these features in it, as `fit_transform` does, whose rounding is another.

        The number of components is lowered to that of spots or features.
        """
        scaler = StandardScaler() if options.scale else None
        x = features if scaler is None else scaler.fit_transform(features)
        if options.pca is None:
            return cls(scaler, None), x.astype(np.float32, copy=False)
        pca = PCA(n_components=min(options.pca, *features.shape), random_state=SEED)
        return cls(scaler, pca), _as_tensor(pca.fit_transform(x))

    @classmethod
    def stored(cls, model: Arrays) -> "Space":
        """Return the fitted objects that `arrays` are of."""
        scaler, pca = None, None
        if "mean" in model:
            scaler = StandardScaler()
            scaler.mean_, scaler.scale_ = model["mean"], model["scale"]
        if "components" in model:
            pca = PCA()
            pca.mean_, pca.components_ = model["pca_mean"], model["components"]
        return cls(scaler, pca)

    def apply(self, features: Float[np.ndarray, "query feature"]) -> Float[np.ndarray, "query dim"]:
        """Return the features in this space."""
        x = features if self.scaler is None else self.scaler.transform(features)
        return x.astype(np.float32, copy=False) if self.pca is None else _as_tensor(self.pca.transform(x))

    def arrays(self) -> Arrays:
        """Return what is stored, in the types that scikit-learn has them."""
        found: Arrays = {}
        if self.scaler is not None:
            found |= {"mean": self.scaler.mean_, "scale": self.scaler.scale_}
        return found if self.pca is None else {**found, "pca_mean": self.pca.mean_, "components": self.pca.components_}


@dataclass(frozen=True)
class _Errors:
    """Squared errors of all candidates on held-out spots, as `cross_validate` needs them.

    They are of standardised values, 2 n (1 - PCC) for n spots: a prediction has no level, and its scale scores nothing.
    """

    features: Float[np.ndarray, "spot feature"]
    expression: Float[np.ndarray, "spot gene"]
    options: HestRidgeOptions

    def __call__(self, fitted: Rows, held: Rows, genes: Rows) -> Float64[np.ndarray, "alpha"]:
        space, x = Space.fit(self.features[fitted], self.options)
        queries = space.apply(self.features[held])
        y, measured = (columns(self.expression, rows, genes) for rows in (fitted, held))
        wanted = _standardised(measured)
        found = (_standardised(queries @ _ridge(x, y, alpha).T) for alpha in ALPHAS)
        return np.asarray([2 * (len(held) * len(genes) - (wanted * one).sum()) for one in found])


def _standardised(values: Float[np.ndarray, "spot gene"]) -> Float64[np.ndarray, "spot gene"]:
    """Return each gene with mean 0 and deviation 1; a constant one is 0, so that its PCC counts as 0."""
    centred = values - values.mean(axis=0, dtype=np.float64)
    deviation = centred.std(axis=0)
    return np.asarray(centred / np.where(deviation > 0, deviation, 1.0))


def _exact(labels: Float[np.ndarray, "spot gene"]) -> Float64[np.ndarray, "spot gene"]:
    """Return labels in float64; log1p of a whole number, stored as float32, is computed again.

    The solver stops at a tolerance, so labels that differ in their eighth digit move a score in its fifth.
    """
    whole = np.log1p(np.rint(np.expm1(np.clip(labels, 0, MOST).astype(np.float64))))
    return np.where(whole.astype(labels.dtype) == labels, whole, labels)


def _as_tensor(components: Float[np.ndarray, "spot dim"]) -> Float64[np.ndarray, "spot dim"]:
    """Return values of float32 as float64, as scikit-learn reads a torch tensor."""
    return components.astype(np.float32).astype(np.float64)


def _ridge(
    x: Float[np.ndarray, "spot dim"], y: Float[np.ndarray, "spot gene"], alpha: float
) -> Float[np.ndarray, "gene dim"]:
    """Return the coefficients of hest-bench's ridge."""
    ridge = Ridge(solver="lsqr", alpha=alpha, fit_intercept=False, max_iter=1000, random_state=SEED, tol=1e-4)
    fitted: Float[np.ndarray, "gene dim"] = np.reshape(ridge.fit(x, y).coef_, (y.shape[1], x.shape[1]))
    return fitted
