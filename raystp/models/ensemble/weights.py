"""Weights of an ensemble's members."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64
from scipy.optimize import nnls

_SUM = 1e6
"""How much more than an error of the typical size a sum that differs from 1 counts."""


def equal_weights(members: int) -> Float64[np.ndarray, "member"]:
    """Return the weights of a plain mean."""
    return np.full(members, 1 / members)


def least_squares_weights(
    predictions: Sequence[Float[np.ndarray, "spot gene"]], measured: Float[np.ndarray, "spot gene"]
) -> Float64[np.ndarray, "member"]:
    """Return weights of at least 0, with sum 1, whose mean has the least squared error.

    Values that are not measured, or that a member does not predict, are left out. With sum 1 the squared error is
    |E w|^2, with a column of E for each member's errors; this is a non-negative least squares problem in the root of
    E'E. Of members with equal predictions one gets all their weight. Weights are equal where no value is left.
    """
    known = ~np.isnan(measured)
    for one in predictions:
        known &= ~np.isnan(one)
    errors = np.stack([(one[known] - measured[known]).astype(np.float64) for one in predictions], axis=1)
    if not len(errors) or not errors.any():
        return equal_weights(len(predictions))
    values, vectors = np.linalg.eigh(errors.T @ errors / len(errors))
    root = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
    large = _SUM * np.sqrt(values[-1])
    found, _ = nnls(np.vstack([root, np.full((1, len(predictions)), large)]), np.append(np.zeros(len(root)), large))
    return np.asarray(found / found.sum())
