"""Inner cross-validation of a baseline over sections, where genes may be missing in some of them."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float64, Int, Shaped
from sklearn.model_selection import KFold, LeaveOneGroupOut

from raystp.errors import ModelError
from raystp.missing import equal_columns

FOLDS = 5
"""Random folds, where the sections are too few to be the folds."""

MIN_GROUPS = 3
"""Fewest sections that are used as folds: with two, a choice would be fitted to a single other section."""

Rows = Int[np.ndarray, "_"]
Errors = Callable[[Rows, Rows, Rows], Float64[np.ndarray, "..."]]
"""Rows to fit, rows held out, columns of genes that all of them measured -> summed squared error of each candidate."""


def cross_validate(
    expression: Float[np.ndarray, "spot gene"], groups: Shaped[np.ndarray, "spot"] | None, seed: int, errors: Errors
) -> Float64[np.ndarray, "..."]:
    """Return each candidate's squared error on held-out spots, mean over all values that are measured there.

    The folds are the `groups` (sections, patients) if there are 3 or more, else 5 random parts drawn from `seed`. A
    gene that is only measured in the fold that is held out is not in this fold's error. Raises ModelError below 2
    spots.
    """
    if len(expression) < 2:  # noqa: PLR2004 -- one to train on, one to hold out
        msg = f"the cross-validation of ridge needs 2 or more spots, got {len(expression)}: add measured spots"
        raise ModelError(msg)
    total, values = _summed(expression, _folds(len(expression), groups, seed), errors)
    if not values:  # each gene is measured in one section only: no other section is left to hold out
        total, values = _summed(expression, _folds(len(expression), None, seed), errors)
    return np.asarray(total / max(values, 1))


def columns(expression: Float[np.ndarray, "spot gene"], rows: Rows, genes: Rows) -> Float[np.ndarray, "row column"]:
    """Return some rows and columns; without a copy of the columns where all are chosen."""
    chosen: np.ndarray = expression[rows] if len(genes) == expression.shape[1] else expression[np.ix_(rows, genes)]
    return chosen


def _summed(
    expression: Float[np.ndarray, "spot gene"], folds: list[tuple[Rows, Rows]], errors: Errors
) -> tuple[Float64[np.ndarray, "..."], int]:
    """Return the summed squared error of each candidate over all folds, and the number of values in it."""
    total, values, parts = np.zeros(()), 0, equal_columns(~np.isnan(expression))
    for train, test in folds:
        for rows, genes in parts:
            fitted, held = (side[np.isin(side, rows)] for side in (train, test))
            if len(fitted) and len(held):
                total = total + errors(fitted, held, genes)
                values += len(held) * len(genes)
    return total, values


def _folds(rows: int, groups: Shaped[np.ndarray, "spot"] | None, seed: int) -> list[tuple[Rows, Rows]]:
    if groups is not None and len(np.unique(groups)) >= MIN_GROUPS:
        return list(LeaveOneGroupOut().split(np.empty((rows, 1)), groups=groups))
    return list(KFold(min(FOLDS, rows), shuffle=True, random_state=seed).split(np.empty((rows, 1))))
