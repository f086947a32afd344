"""From log1p CP10k to the unit that errors are measured in, and back; also for genes that nobody measured.

Three units. `standardised` (default): deviations from each training gene's mean in its own standard deviations, so that
each gene counts alike. `centred`: deviations from each gene's mean in one common unit, so that variable genes count
more. `min_max`, the published one: 0 to 1 over the genes of a spot (gene context), or over a section's spots for one
gene (spot context).

The way back is `offset + scale * answer` with one pair per gene, stored with the model. For `min_max` the extremes of
the tile in question are not known, since nobody measured it, and the training extremes' means stand in for them: order
within what was scaled is kept, level is not. For a gene that was never trained on, the pair itself is unknown: it is a
guess by ridge regression on the genes' texts, inside the range of the trained genes. Correlations over tiles do not
depend on that guess, and errors (MSE, MAE) of unseen genes do: report them with care.
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from sklearn.linear_model import RidgeCV
from torch import Tensor

PENALTIES = (1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4)
"""Ridge penalties that are tried for the guess, by leave-one-gene-out."""

Pair = Float64[np.ndarray, "2 gene"]
"""Offset and scale of each gene."""


def min_max(
    values: Float[Tensor, "row token"], mask: Bool[Tensor, "row token"] | None = None
) -> Float[Tensor, "row token"]:
    """Return each row between 0 and 1 by its own extremes, masked places left out of them and 0; a constant row is 0.

    The published formula is `(x - min) / (max - min + 1e-8)`, with padding among the values.
    """
    there = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
    low = values.masked_fill(~there, torch.inf).amin(dim=1, keepdim=True)
    span = values.masked_fill(~there, -torch.inf).amax(dim=1, keepdim=True) - low
    scaled = (values - low) / torch.where(span > 0, span, 1)
    return torch.where(there, scaled, 0)


def standard_pairs(expression: Float[np.ndarray, "spot gene"], *, common: bool) -> Pair:
    """Return each gene's mean, and its standard deviation or (`common`) the root mean square of all genes'.

    A gene that never varied has scale 0: it scales to 0, and comes back as its mean.
    """
    deviation = expression.std(axis=0, dtype=np.float64)
    if common:
        deviation = np.where(deviation > 0, np.sqrt(np.mean(deviation**2)), 0)
    return np.stack([expression.mean(axis=0, dtype=np.float64), deviation])


def spot_pairs(expression: Float[np.ndarray, "spot gene"]) -> Pair:
    """Return the mean over spots of a spot's minimum and of its span over genes: one pair, the same for each gene."""
    low, high = expression.min(axis=1), expression.max(axis=1)
    pair = np.array([low.mean(dtype=np.float64), (high - low).mean(dtype=np.float64)])
    return np.repeat(pair[:, None], expression.shape[1], axis=1)


def section_pairs(expression: Float[np.ndarray, "spot gene"], sections: Int64[np.ndarray, "spot"]) -> Pair:
    """Return the mean over sections of each gene's minimum and span over the section's spots."""
    each = [expression[sections == section].astype(np.float64) for section in np.unique(sections)]
    return np.stack(
        [np.mean([part.min(axis=0) for part in each], axis=0), np.mean([np.ptp(p, axis=0) for p in each], axis=0)]
    )


def pairs(
    expression: Float[np.ndarray, "spot gene"],
    sections: Int64[np.ndarray, "spot"],
    scaling: Literal["standardised", "centred", "min_max"],
    context: Literal["gene", "spot", "none"],
) -> Pair:
    """Return each gene's way back from the scaled unit, see the module."""
    if scaling != "min_max":
        return standard_pairs(expression, common=scaling == "centred")
    return section_pairs(expression, sections) if context == "spot" else spot_pairs(expression)


def text_guess(
    texts: Float[np.ndarray, "gene text"], pair: Pair
) -> tuple[Float64[np.ndarray, "2 text"], Float64[np.ndarray, "2"]]:
    """Return weights and biases by which a text guesses a gene's offset and the logarithm of its scale.

    Genes that never varied teach nothing of scales, and with fewer than three others the guess is their mean.
    """
    weights, biases = np.zeros((2, texts.shape[1])), np.zeros(2)
    varied = pair[1] > 0
    for row, target in enumerate((pair[0], np.log(np.where(varied, pair[1], 1)))):
        kept = varied if row else np.ones(len(varied), dtype=bool)
        if kept.any():
            biases[row] = target[kept].mean()
        if kept.sum() > 2 and np.ptp(target[kept]) > 0:  # noqa: PLR2004 -- one to leave out, two to draw a line
            line = RidgeCV(alphas=PENALTIES).fit(texts[kept].astype(np.float64), target[kept])
            weights[row], biases[row] = line.coef_, line.intercept_
    return weights, biases
