"""Arithmetic over expression with missing values: NaN where a section has not measured a gene.

Where nothing is missing, results equal those of the plain operation bit by bit.
"""

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64


def has_missing(values: Float[np.ndarray, "spot gene"]) -> bool:
    """Say whether any value is missing."""
    return bool(np.isnan(values).any())


def column_means(values: Float[np.ndarray, "spot gene"]) -> Float64[np.ndarray, "gene"]:
    """Return each gene's mean over the spots that measured it; NaN where none did."""
    known = ~np.isnan(values)
    if known.all():
        return np.asarray(values.mean(axis=0, dtype=np.float64))
    count = known.sum(axis=0)
    total = np.where(known, values, 0).sum(axis=0, dtype=np.float64)
    return np.asarray(total / np.where(count > 0, count, np.nan))


def equal_columns(
    known: Bool[np.ndarray, "spot gene"],
) -> list[tuple[Int64[np.ndarray, "rows"], Int64[np.ndarray, "columns"]]]:
    """Group genes that the same spots measured: return the rows of these spots, and the columns of the genes."""
    if known.all():
        return [(np.arange(known.shape[0]), np.arange(known.shape[1]))]
    _, first, group = np.unique(np.packbits(known, axis=0), axis=1, return_index=True, return_inverse=True)
    numbers = [np.flatnonzero(group.ravel() == number) for number in range(len(first))]
    return [(np.flatnonzero(known[:, columns[0]]), columns) for columns in numbers]


def filled(values: Float[np.ndarray, "spot gene"], fill: Float[np.ndarray, "gene"]) -> Float[np.ndarray, "spot gene"]:
    """Return the values with each missing one replaced by its gene's `fill`; the same array where none is missing."""
    if not has_missing(values):
        return values
    return np.where(np.isnan(values), fill.astype(values.dtype), values)


def pair_where_predicted(
    predicted: Float[np.ndarray, "spot gene"], measured: Float[np.ndarray, "spot gene"]
) -> tuple[Float[np.ndarray, "spot gene"], Float[np.ndarray, "spot gene"]]:
    """Return both, with a measured value missing where there is no prediction; the prediction is 0 there."""
    absent = np.isnan(predicted)
    if not absent.any():
        return predicted, measured
    return np.where(absent, 0, predicted).astype(predicted.dtype), np.where(absent, np.nan, measured)
