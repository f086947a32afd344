"""Ridge regression in the space of a Gaussian kernel: a prediction that is not linear in the features.

Features are standardised and divided by the root of their number, so that two spots are about 2 apart, squared. Labels
and kernel are centred, so the intercept has no penalty. With a gamma near 0 the method is ridge, at the penalty
`alpha * features / (2 * gamma)`.

All spots are references up to `exact_spots`: 8 bytes times their square, 3.2 GB for 20,000. Beyond, `landmarks` drawn
from the seed are (Nystroem): 16 bytes times their square and the genes' labels, whatever the number of spots. The
choice of gamma and alpha reads at most 20,000 spots and 1,000 references a fold.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jaxtyping import Float, Float32, Float64, Shaped

from raystp.missing import equal_columns
from raystp.models.arrays import Arrays, SpotArrays
from raystp.models.baselines.folds import Rows, columns, cross_validate
from raystp.models.baselines.kernel import Nystroem, centre, gaussian
from raystp.models.baselines.method import KernelRidgeOptions
from raystp.models.baselines.predictor import BaselinePredictor
from raystp.models.baselines.spectrum import Spectrum
from raystp.models.layers import standardiser
from raystp.models.method import ModelMeta

GAMMAS = tuple(float(gamma) for gamma in np.logspace(-2, 0.5, 6))
"""Candidates, two a decade: from nearly linear to neighbours only."""

ALPHAS = tuple(float(alpha) for alpha in np.logspace(-6, 5, 23))
"""Candidates, two a decade. Shuffled labels choose a large alpha."""

CHOICE_SPOTS, CHOICE_LANDMARKS = 20_000, 1000
"""Most spots, and references of a fold, that gamma and alpha are chosen on; they limit time and memory."""

_BLOCK_VALUES = 1 << 23
"""Values of the kernel at a time: 64 MiB in float64; does not change the result but for rounding."""


@dataclass(frozen=True)
class Candidates:
    """Values that the cross-validation chooses from."""

    gammas: tuple[float, ...] = GAMMAS
    alphas: tuple[float, ...] = ALPHAS


_DEFAULT, ALL = KernelRidgeOptions(), Candidates()


def fit(options: KernelRidgeOptions, train: SpotArrays, *, seed: int) -> Arrays:
    """Return references and their weights; the penalty and, unless given, gamma are chosen over sections."""
    candidates = ALL if options.gamma is None else Candidates(gammas=(options.gamma,))
    return fit_kernel_ridge(
        train.features, train.expression, groups=train.group, options=options, candidates=candidates, seed=seed
    )


def open_predictor(arrays: Arrays, meta: ModelMeta) -> BaselinePredictor:
    """Return a stored model, ready to predict."""
    return BaselinePredictor("kernel_ridge", meta["genes"], meta["d_image"], arrays, predict_kernel_ridge)


def fit_kernel_ridge(
    features: Float[np.ndarray, "spot feature"],
    expression: Float[np.ndarray, "spot gene"],
    *,
    groups: Shaped[np.ndarray, "spot"] | None = None,
    seed: int = 0,
    options: KernelRidgeOptions = _DEFAULT,
    candidates: Candidates = ALL,
) -> Arrays:
    """Fit all genes with the gamma and the alpha of the least cross-validated squared error, chosen together.

    The folds are those of ridge. A gene is fitted on the spots that measured it. Of equal candidates the smallest
    gamma, then the smallest alpha is chosen. The arrays include both, and the errors, a row per gamma. Raises
    ModelError below 2 spots.
    """
    rng = np.random.default_rng([seed, 0x6B72])
    read = np.sort(rng.permutation(len(features))[:CHOICE_SPOTS])
    choice = _Choice(features[read], expression[read], candidates, seed)
    mse = cross_validate(choice.expression, None if groups is None else groups[read], seed, choice.errors)
    row, column = np.unravel_index(int(np.argmin(mse)), mse.shape)
    gamma, alpha = candidates.gammas[int(row)], candidates.alphas[int(column)]
    mean, scale = _standard(features)
    if len(features) <= options.exact_spots:
        references = ((features - mean) / scale).astype(np.float32)
        weights, intercept = _fit_exact(references.astype(np.float64), expression, gamma, alpha)
    else:
        landmarks = np.sort(rng.permutation(len(features))[: options.landmarks])
        references = ((features[landmarks] - mean) / scale).astype(np.float32)
        space = Nystroem.of(references.astype(np.float64), gamma)
        weights, intercept = _fit_on_landmarks(space, (features, mean, scale), expression, alpha)
    return {
        "mean": mean.astype(np.float32),
        "scale": scale.astype(np.float32),
        "references": references,
        "weights": weights.astype(np.float32),
        "intercept": intercept.astype(np.float32),
        "gamma": np.array(gamma),
        "alpha": np.array(alpha),
        "gammas": np.array(candidates.gammas),
        "alphas": np.array(candidates.alphas),
        "cv_mse": mse,
    }


def predict_kernel_ridge(
    model: Arrays, features: Float[np.ndarray, "query feature"]
) -> Float32[np.ndarray, "query gene"]:
    """Predict expression from features of the same encoder, block by block."""
    references, weights = model["references"], model["weights"]
    out = np.empty((len(features), weights.shape[1]), np.float32)
    size = max(1, _BLOCK_VALUES // len(references))
    for start in range(0, len(features), size):
        block = slice(start, start + size)
        x = ((features[block] - model["mean"]) / model["scale"]).astype(np.float32)
        out[block] = gaussian(x, references, float(model["gamma"])) @ weights + model["intercept"]
    return out


@dataclass(frozen=True)
class _Choice:
    """The spots that gamma and alpha are chosen on."""

    features: Float[np.ndarray, "spot feature"]
    expression: Float[np.ndarray, "spot gene"]
    candidates: Candidates
    seed: int

    def errors(self, fitted: Rows, held: Rows, genes: Rows) -> Float64[np.ndarray, "gamma alpha"]:
        """Return the summed squared error on the held-out spots, as `cross_validate` needs it."""
        mean, scale = _standard(self.features[fitted])
        x, queries = ((self.features[rows] - mean) / scale for rows in (fitted, held))
        y, measured = (columns(self.expression, rows, genes) for rows in (fitted, held))
        drawn = np.random.default_rng([self.seed, len(fitted)]).permutation(len(fitted))[:CHOICE_LANDMARKS]
        errors = np.empty((len(self.candidates.gammas), len(self.candidates.alphas)))
        for number, gamma in enumerate(self.candidates.gammas):
            space = Nystroem.of(x[np.sort(drawn)], gamma)
            z = space.features(x)
            spectrum = Spectrum.scaled(z, y, z.mean(axis=0), np.ones(z.shape[1]))
            errors[number] = spectrum.squared_errors(space.features(queries), measured, self.candidates.alphas)
        return errors


def _fit_exact(
    x: Float64[np.ndarray, "spot feature"], expression: Float[np.ndarray, "spot gene"], gamma: float, alpha: float
) -> tuple[Float64[np.ndarray, "spot gene"], Float64[np.ndarray, "gene"]]:
    """Return the weights of all spots as references, and the intercept; 0 where a spot has not measured the gene.

    The weights of a gene add to 0, so of the centred kernel only the references' means remain, in the intercept.
    """
    weights, intercept = np.zeros(expression.shape), np.full(expression.shape[1], np.nan)
    for rows, genes in equal_columns(~np.isnan(expression)):
        if not len(rows):
            continue
        y = columns(expression, rows, genes).astype(np.float64)
        label_mean = y.mean(axis=0)
        y -= label_mean
        own = x[rows]
        kernel = gaussian(own, own, gamma)
        means = centre(kernel)
        kernel[np.diag_indices_from(kernel)] += alpha
        factor = scipy.linalg.cho_factor(kernel.T, lower=True, overwrite_a=True, check_finite=False)
        found = scipy.linalg.cho_solve(factor, y, overwrite_b=True, check_finite=False)
        weights[np.ix_(rows, genes)] = found
        intercept[genes] = label_mean - means @ found
    return weights, intercept


def _fit_on_landmarks(
    space: Nystroem,
    standardised: tuple[Float[np.ndarray, "spot feature"], Float[np.ndarray, "feature"], Float[np.ndarray, "feature"]],
    expression: Float[np.ndarray, "spot gene"],
    alpha: float,
) -> tuple[Float64[np.ndarray, "landmark gene"], Float64[np.ndarray, "gene"]]:
    """Return the weights of the landmarks as references, and the intercept; reads the spots block by block."""
    features, mean, scale = standardised
    rank, size = space.root.shape[1], max(1, _BLOCK_VALUES // len(space.landmarks))
    weights = np.zeros((len(space.landmarks), expression.shape[1]))
    intercept = np.full(expression.shape[1], np.nan)
    for rows, genes in equal_columns(~np.isnan(expression)):
        if not len(rows):
            continue
        square, product = np.zeros((rank, rank)), np.zeros((rank, len(genes)))
        z_mean, label_mean = np.zeros(rank), columns(expression, rows, genes).mean(axis=0, dtype=np.float64)
        for start in range(0, len(rows), size):
            block = rows[start : start + size]
            z = space.features((features[block] - mean) / scale)
            square += z.T @ z
            product += z.T @ (columns(expression, block, genes) - label_mean)
            z_mean += z.sum(axis=0) / len(rows)
        square -= len(rows) * np.outer(z_mean, z_mean)
        square[np.diag_indices_from(square)] += alpha
        found = scipy.linalg.solve(square, product, assume_a="pos", overwrite_a=True, overwrite_b=True)
        weights[:, genes] = space.root @ found
        intercept[genes] = label_mean - z_mean @ found
    return weights, intercept


def _standard(
    features: Float[np.ndarray, "spot feature"],
) -> tuple[Float64[np.ndarray, "feature"], Float64[np.ndarray, "feature"]]:
    """Return the mean of each feature, and its deviation times the root of the number of features."""
    mean, scale = standardiser(features)
    return mean, scale * np.sqrt(features.shape[1])
