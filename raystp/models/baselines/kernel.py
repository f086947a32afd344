"""Gaussian kernel between standardised features, and its Nystroem features on landmarks."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

_LEAST = 1e-12
"""Share of the largest eigenvalue below which a direction of the landmarks is rounding error."""


def gaussian(
    x: Float[np.ndarray, "row feature"], y: Float[np.ndarray, "reference feature"], gamma: float
) -> Float[np.ndarray, "row reference"]:
    """Return exp(-gamma |x - y|^2) - 1, in the precision of `x` and `y`, in the memory of the result.

    Minus 1, because at a small gamma the differences between the values would be lost in rounding. A regression with an
    intercept does not depend on it.
    """
    values = x @ y.T
    values *= -2
    values += np.einsum("ij,ij->i", x, x)[:, None]
    values += np.einsum("ij,ij->i", y, y)
    np.maximum(values, 0, out=values)
    values *= -gamma
    np.expm1(values, out=values)
    return np.asarray(values)


def centre(kernel: Float64[np.ndarray, "row row"]) -> Float64[np.ndarray, "row"]:
    """Centre a kernel between the same rows in place: its features then have mean 0. Return the former row means."""
    mean = kernel.mean(axis=0)
    kernel -= mean
    kernel -= (mean - mean.mean())[:, None]
    return np.asarray(mean)


@dataclass(frozen=True)
class Nystroem:
    """Features whose products are close to the kernel, centred over the landmarks (Williams and Seeger 2001).

    With all spots of a training as landmarks, the products of its centred features equal its centred kernel.
    """

    landmarks: Float64[np.ndarray, "landmark feature"]
    gamma: float
    root: Float64[np.ndarray, "landmark rank"]
    """Each column adds to 0, so that centring the landmarks' side is enough."""

    @classmethod
    def of(cls, landmarks: Float64[np.ndarray, "landmark feature"], gamma: float) -> "Nystroem":
        """Return the features on landmarks; takes the cube of their number."""
        kernel = gaussian(landmarks, landmarks, gamma)
        centre(kernel)
        values, vectors = np.linalg.eigh(kernel)
        kept = values > max(_LEAST * values[-1], np.finfo(np.float64).tiny)
        root = vectors[:, kept] / np.sqrt(values[kept])
        return cls(landmarks, gamma, root - root.mean(axis=0))

    def features(self, x: Float64[np.ndarray, "row feature"]) -> Float64[np.ndarray, "row rank"]:
        """Return the features of rows, not centred."""
        features: np.ndarray = gaussian(x, self.landmarks, self.gamma) @ self.root
        return features
