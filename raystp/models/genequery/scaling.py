"""Scale labels to the unit of the errors, and back; also for genes that were not measured.

There are three units. `standardised` (default): deviations from each training gene's mean in its own standard
deviations, so that each gene has the same weight. `centred`: deviations from each gene's mean in one common unit, so
that variable genes have more weight. `min_max`, the published one: 0 to 1 over the genes of a spot, or over a
section's spots for one gene (spot context).

A scaled prediction is scaled back as `offset + scale * prediction`, with one offset and one scale per gene, which are
stored with the model. For `min_max` the extremes at a new tile are unknown, and the means of the training extremes
replace them. The order of the values that were scaled together is kept; their level is not.

For a gene that was not in the training, offset and scale are unknown. They are estimated by ridge regression on the
gene texts, inside the range of the trained genes. Correlations over tiles do not depend on this estimate. Errors (MSE,
MAE) of unseen genes do: report them with care.
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from sklearn.linear_model import RidgeCV
from torch import Tensor

from raystp.missing import column_means, has_missing

PENALTIES = (1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4)
"""Ridge penalties that are tried for the estimate, by leave-one-gene-out."""

Scaling = Float64[np.ndarray, "2 gene"]
"""Offset and scale of each gene."""


def min_max(
    values: Float[Tensor, "row token"], mask: Bool[Tensor, "row token"] | None = None
) -> Float[Tensor, "row token"]:
    """Return each row scaled to 0 to 1 by its own extremes; a constant row is 0.

    Masked tokens do not count for the extremes and are 0. The published formula is `(x - min) / (max - min + 1e-8)`,
    with padding among the values.
    """
    present = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
    low = values.masked_fill(~present, torch.inf).amin(dim=1, keepdim=True)
    span = values.masked_fill(~present, -torch.inf).amax(dim=1, keepdim=True) - low
    scaled = (values - low) / torch.where(span > 0, span, 1)
    return torch.where(present, scaled, 0)


def gene_scaling(
    expression: Float[np.ndarray, "spot gene"],
    sections: Int64[np.ndarray, "spot"],
    scaling: Literal["standardised", "centred", "min_max"],
    context: Literal["gene", "spot", "none", "tokens"],
) -> Scaling:
    """Return each gene's offset and scale, as the module describes them."""
    if scaling != "min_max":
        return _standard_scaling(expression, common=scaling == "centred")
    return _section_scaling(expression, sections) if context == "spot" else _spot_scaling(expression)


def fit_scaling_to_texts(
    texts: Float[np.ndarray, "gene text"], scaling: Scaling
) -> tuple[Float64[np.ndarray, "2 text"], Float64[np.ndarray, "2"]]:
    """Return weights and biases that estimate a gene's offset and the logarithm of its scale from its text.

    Genes of constant expression are not used for the scale. With fewer than three genes the estimate is their mean.
    """
    weights, biases = np.zeros((2, texts.shape[1])), np.zeros(2)
    varied = scaling[1] > 0
    for row, target in enumerate((scaling[0], np.log(np.where(varied, scaling[1], 1)))):
        kept = varied if row else np.ones(len(varied), dtype=bool)
        if kept.any():
            biases[row] = target[kept].mean()
        if kept.sum() > 2 and np.ptp(target[kept]) > 0:  # noqa: PLR2004 -- one to leave out, two for a regression
            line = RidgeCV(alphas=PENALTIES).fit(texts[kept].astype(np.float64), target[kept])
            weights[row], biases[row] = line.coef_, line.intercept_
    return weights, biases


def _standard_scaling(expression: Float[np.ndarray, "spot gene"], *, common: bool) -> Scaling:
    """Return each gene's mean, and its standard deviation or (`common`) the root mean square of all genes'.

    A gene of constant expression has scale 0: it is scaled to 0, and back to its mean.
    """
    missing = has_missing(expression)
    deviation = np.nanstd(expression, axis=0, dtype=np.float64) if missing else expression.std(axis=0, dtype=np.float64)
    if common:
        deviation = np.where(deviation > 0, np.sqrt(np.mean(deviation**2)), 0)
    return np.stack([column_means(expression), deviation])


def _spot_scaling(expression: Float[np.ndarray, "spot gene"]) -> Scaling:
    """Return the mean over spots of a spot's minimum and of its span over genes: the same for each gene."""
    measured = expression[~np.isnan(expression).all(axis=1)]
    low, high = np.nanmin(measured, axis=1), np.nanmax(measured, axis=1)
    scaling = np.array([low.mean(dtype=np.float64), (high - low).mean(dtype=np.float64)])
    return np.repeat(scaling[:, None], expression.shape[1], axis=1)


def _section_scaling(expression: Float[np.ndarray, "spot gene"], sections: Int64[np.ndarray, "spot"]) -> Scaling:
    """Return the mean, over sections that measured it, of each gene's minimum and span over the section's spots."""
    each = [expression[sections == section].astype(np.float64) for section in np.unique(sections)]
    low = np.stack([np.fmin.reduce(part, axis=0) for part in each])
    high = np.stack([np.fmax.reduce(part, axis=0) for part in each])
    return np.stack([column_means(low), column_means(high - low)])
