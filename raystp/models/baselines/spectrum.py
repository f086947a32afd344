"""Eigendecomposition of a ridge regression: the weights and errors of every penalty and rank at the cost of one fit.

With X the standardised features (n x d) and X'X = V diag(l) V', the weights are V diag(1 / (l + alpha)) V'X'Y; with
fewer rows than features the same follows from XX' = U diag(l) U' as X'U diag(1 / (l + alpha)) U'Y. Both are
`basis @ (right / (l + alpha))`.

The weights of rank r that minimise |Y - XB|^2 + alpha |B|^2 are W C C' (Mukherjee and Zhu, "Reduced rank ridge
regression and its kernel extensions", 2011). W are the full weights, and C the r leading eigenvectors of
W'(X'X + alpha)W: the fitted values in the metric of the ridge regression.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jaxtyping import Float, Float64

from raystp.models.layers import standardiser


@dataclass(frozen=True)
class Spectrum:
    """Eigendecomposition of a training set: the weights for an alpha cost one matrix product."""

    mean: Float64[np.ndarray, "feature"]
    scale: Float64[np.ndarray, "feature"]
    intercept: Float64[np.ndarray, "gene"]
    basis: Float64[np.ndarray, "feature rank"]
    values: Float64[np.ndarray, "rank"]
    right: Float64[np.ndarray, "rank gene"]
    lengths: Float64[np.ndarray, "rank"]
    """Squared length of each column of `basis`."""

    @classmethod
    def of(cls, features: Float[np.ndarray, "spot feature"], expression: Float[np.ndarray, "spot gene"]) -> "Spectrum":
        """Return that of standardised features and centred expression; nothing may be missing."""
        return cls.scaled(features, expression, *standardiser(features))

    @classmethod
    def scaled(
        cls,
        features: Float[np.ndarray, "spot feature"],
        expression: Float[np.ndarray, "spot gene"],
        mean: Float64[np.ndarray, "feature"],
        scale: Float64[np.ndarray, "feature"],
    ) -> "Spectrum":
        """Return that of features minus `mean`, divided by `scale`; `mean` must be that of these spots."""
        intercept = expression.mean(axis=0, dtype=np.float64)
        x, y = (features - mean) / scale, expression - intercept
        if x.shape[0] >= x.shape[1]:
            values, basis = np.linalg.eigh(x.T @ x)
            right = basis.T @ (x.T @ y)
        else:
            values, vectors = np.linalg.eigh(x @ x.T)
            basis, right = x.T @ vectors, vectors.T @ y
        values = np.maximum(values, 0.0)
        lengths = np.ones_like(values) if x.shape[0] >= x.shape[1] else values
        return cls(mean, scale, intercept, basis, values, right, lengths)

    def weights(self, alpha: float) -> Float64[np.ndarray, "feature gene"]:
        """Return the weights of a penalty."""
        weights: np.ndarray = self.basis @ (self.right / (self.values + alpha)[:, None])
        return weights

    def components(self, alpha: float, rank: int) -> Float64[np.ndarray, "gene component"]:
        """Return the `rank` leading directions of the fitted values, orthonormal, the largest first.

        There are fewer where the fitted values have fewer. Takes the cube of the smaller of genes and spots.
        """
        scaled = self.right * np.sqrt(self.lengths / (self.values + alpha))[:, None]
        rows, genes = scaled.shape
        square = scaled.T @ scaled if genes <= rows else scaled @ scaled.T
        first = max(0, len(square) - rank)
        values, vectors = scipy.linalg.eigh(square, subset_by_index=(first, len(square) - 1), driver="evr")
        kept = np.flatnonzero(values > values[-1] * np.finfo(np.float64).eps * len(square))[::-1]
        if genes <= rows:
            return np.asarray(vectors[:, kept])
        return np.asarray(scaled.T @ vectors[:, kept] / np.sqrt(values[kept]))

    def weights_of_rank(self, alpha: float, rank: int) -> Float64[np.ndarray, "feature gene"]:
        """Return the weights of a penalty and a rank."""
        components = self.components(alpha, rank)
        weights: np.ndarray = self.basis @ ((self.right @ components) / (self.values + alpha)[:, None]) @ components.T
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

    def squared_errors_of_ranks(
        self,
        features: Float[np.ndarray, "query feature"],
        expression: Float[np.ndarray, "query gene"],
        alphas: tuple[float, ...],
        ranks: tuple[int, ...],
    ) -> Float64[np.ndarray, "alpha candidate"]:
        """Return the summed squared error on other spots for each alpha and rank.

        The components are orthonormal, so each adds its own term: one decomposition has the errors of all ranks.
        """
        left = ((features - self.mean) / self.scale) @ self.basis
        y = expression - self.intercept
        errors = np.empty((len(alphas), len(ranks)))
        for number, alpha in enumerate(alphas):
            components = self.components(alpha, max(ranks))
            predicted = left @ ((self.right @ components) / (self.values + alpha)[:, None])
            gain = (predicted**2 - 2 * predicted * (y @ components)).sum(axis=0)
            total = (y**2).sum() + np.concatenate([[0.0], np.cumsum(gain)])
            errors[number] = total[np.minimum(ranks, len(gain))]
        return errors
