"""Ridge regression whose fitted values span few directions of expression (reduced-rank regression).

Genes share programs, so the weights of hundreds of genes are close to a few profiles. Fewer profiles have less noise:
on real sections of another patient, few of them predict better than all. `spectrum` has the formula.
"""

import numpy as np
from jaxtyping import Float, Shaped

from raystp.models.arrays import Arrays, SpotArrays
from raystp.models.baselines.folds import columns, cross_validate
from raystp.models.baselines.method import RidgeLowrankOptions
from raystp.models.baselines.predictor import BaselinePredictor
from raystp.models.baselines.ridge import ALPHAS, predict_ridge, weights_by_gene_group
from raystp.models.baselines.spectrum import Spectrum
from raystp.models.method import ModelMeta

RANKS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100)
"""Candidates; all ranks up to the number of genes, spots and features are a further one."""


def fit(options: RidgeLowrankOptions, train: SpotArrays, *, seed: int) -> Arrays:
    """Return the weights; penalty and, unless it is given, rank are chosen by cross-validation over sections."""
    ranks = None if options.rank is None else (options.rank,)
    return fit_ridge_lowrank(train.features, train.expression, groups=train.group, seed=seed, ranks=ranks)


def open_predictor(arrays: Arrays, meta: ModelMeta) -> BaselinePredictor:
    """Return a stored model, ready to predict."""
    return BaselinePredictor("ridge_lowrank", meta["genes"], meta["d_image"], arrays, predict_ridge)


def fit_ridge_lowrank(
    features: Float[np.ndarray, "spot feature"],
    expression: Float[np.ndarray, "spot gene"],
    *,
    groups: Shaped[np.ndarray, "spot"] | None = None,
    seed: int = 0,
    alphas: tuple[float, ...] = ALPHAS[::2],
    ranks: tuple[int, ...] | None = None,
) -> Arrays:
    """Fit all genes with the alpha and the rank of the least cross-validated squared error, chosen together.

    The folds are those of ridge. Without `ranks` the candidates are `RANKS` and the full rank, at which the weights are
    those of ridge. Genes that other spots measured have components of their own, of the same rank. Of equal candidates
    the smallest alpha, then the smallest rank is chosen. The arrays include both, and the errors of all candidates, a
    row per alpha. Raises ModelError below 2 spots.
    """
    full = min(*features.shape, expression.shape[1])
    tried = (
        (*(rank for rank in RANKS if rank < full), full) if ranks is None else tuple(min(rank, full) for rank in ranks)
    )
    partial = tuple(rank for rank in tried if rank < full)

    def errors(fitted: np.ndarray, held: np.ndarray, genes: np.ndarray) -> np.ndarray:
        spectrum = Spectrum.of(features[fitted], columns(expression, fitted, genes))
        x, y = features[held], columns(expression, held, genes)
        parts = [spectrum.squared_errors_of_ranks(x, y, alphas, partial)] if partial else []
        if full in tried:
            parts.append(spectrum.squared_errors(x, y, alphas)[:, None])
        return np.concatenate(parts, axis=1)

    mse = cross_validate(expression, groups, seed, errors)
    best, column = np.unravel_index(int(np.argmin(mse)), mse.shape)
    alpha, rank = alphas[int(best)], tried[int(column)]
    fitted = weights_by_gene_group(
        features,
        expression,
        lambda spectrum: spectrum.weights(alpha) if rank == full else spectrum.weights_of_rank(alpha, rank),
    )
    chosen = {"alpha": np.array(alpha), "rank": np.array(rank, np.int64)}
    return {**fitted, **chosen, "alphas": np.array(alphas), "ranks": np.array(tried, np.int64), "cv_mse": mse}
