"""Expression from the total counts of a spot alone: a control that uses no image."""

import numpy as np
from jaxtyping import Float, Float32
from sklearn.linear_model import LinearRegression

from raystp.missing import equal_columns
from raystp.models.arrays import Arrays


def fit_log_total(totals: Float[np.ndarray, "spot"], expression: Float[np.ndarray, "spot gene"]) -> Arrays:
    """Regress each gene on log(1 + total counts) of its spot, by least squares, with an intercept.

    It uses no image, only the measured sequencing depth of each query. The score of a model says something about tissue
    only if it is higher than this one. A gene is fitted on the spots that measured it; one that none measured is NaN.
    """
    slope, intercept = np.full(expression.shape[1], np.nan), np.full(expression.shape[1], np.nan)
    for rows, genes in equal_columns(~np.isnan(expression)):
        if len(rows):
            line = LinearRegression().fit(_log(totals[rows]), expression[np.ix_(rows, genes)].astype(np.float64))
            slope[genes], intercept[genes] = line.coef_[:, 0], line.intercept_
    return {"slope": slope.astype(np.float32), "intercept": intercept.astype(np.float32)}


def predict_log_total(model: Arrays, totals: Float[np.ndarray, "query"]) -> Float32[np.ndarray, "query gene"]:
    """Predict from the total counts measured at each query."""
    return (_log(totals) * model["slope"] + model["intercept"]).astype(np.float32)


def _log(totals: Float[np.ndarray, "spot"]) -> Float[np.ndarray, "spot 1"]:
    return np.log1p(totals.astype(np.float64))[:, None]
