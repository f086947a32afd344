"""Linear completion: a ridge regression of each gene on the spot's other genes and on the neighbours' mean.

It is the honest baseline of SpaCKLE. It is trained like SpaCKLE: real entries are hidden at random, and the regression
predicts them from what is left. Values are centred by the mean of each gene's real entries; hidden and missing ones
are then 0, in training as in use.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64

from raystp.errors import ModelError
from raystp.models.completion.values import (
    SectionValues,
    keep_real,
    mask_rates,
    mean_of_real,
    nearest_spots,
    real_share,
)

ALPHA = 1000.0
"""The ridge penalty: chosen on masked entries of training sections among 30 to 3,000; the result is flat there."""

NEIGHBOURS = 6
DRAWS = 4
"""Random masks per training section."""


@dataclass(frozen=True)
class LinearCompletion:
    """A fitted regression: one row of weights per input, one column per completed gene."""

    mean: Float64[np.ndarray, "gene"]
    """Mean of each gene's real entries over the training sections."""
    weights: Float64[np.ndarray, "input gene"]
    """Inputs are the spot's genes, then the neighbours' means. A gene's weight on itself is 0."""
    offset: Float64[np.ndarray, "gene"]

    def complete(self, section: SectionValues) -> Float32[np.ndarray, "spot gene"]:
        """Return the section with each missing entry predicted; it depends on this section alone."""
        inputs = _inputs(section, section.real, self.mean)
        predicted = inputs @ self.weights + self.offset + self.mean
        return keep_real(section, predicted.astype(np.float32))


def fit_linear(sections: list[SectionValues], *, alpha: float = ALPHA, seed: int = 0) -> LinearCompletion:
    """Fit on the training sections, with `DRAWS` random masks of each; raises ModelError for a gene never counted."""
    share = real_share(sections)
    if not share.all():
        msg = f"{int((share == 0).sum())} of {len(share)} genes have no count in the training sections: leave them out"
        raise ModelError(msg)
    mean = mean_of_real(sections)
    rng, rates = np.random.default_rng(seed), mask_rates(share)
    inputs, targets, hidden = [], [], []
    for section in sections:
        for _ in range(DRAWS):
            masked = section.real & (rng.random(section.values.shape) < rates)
            inputs.append(_inputs(section, section.real & ~masked, mean))
            targets.append(section.values - mean)
            hidden.append(masked)
    weights, offset = _solve(np.concatenate(inputs), np.concatenate(targets), np.concatenate(hidden), alpha)
    return LinearCompletion(mean, weights, offset)


def _solve(
    inputs: Float64[np.ndarray, "row input"],
    targets: Float64[np.ndarray, "row gene"],
    hidden: Bool[np.ndarray, "row gene"],
    alpha: float,
) -> tuple[Float64[np.ndarray, "input gene"], Float64[np.ndarray, "gene"]]:
    """Return weights and offsets of one ridge per gene, over the rows where that gene was hidden."""
    weights = np.zeros((inputs.shape[1], targets.shape[1]))
    offset = np.zeros(targets.shape[1])
    for gene in range(targets.shape[1]):
        rows = hidden[:, gene]
        if not rows.any():
            continue
        x, y = inputs[rows], targets[rows, gene]
        middle, offset[gene] = x.mean(axis=0), y.mean()
        x = x - middle
        gram = x.T @ x
        gram[np.diag_indices_from(gram)] += alpha
        weights[:, gene] = np.linalg.solve(gram, x.T @ (y - offset[gene]))
        offset[gene] -= middle @ weights[:, gene]
    return weights, offset


def _inputs(
    section: SectionValues, visible: Bool[np.ndarray, "spot gene"], mean: Float64[np.ndarray, "gene"]
) -> Float64[np.ndarray, "spot input"]:
    """Return the spot's visible genes and the mean of its neighbours' visible ones, both centred; 0 where none is."""
    centred = np.where(visible, section.values - mean, 0.0)
    near = nearest_spots(section.xy, NEIGHBOURS)
    is_other = near[:, 1:] != near[:, :1]
    total = (centred[near[:, 1:]] * is_other[..., None]).sum(axis=1)
    count = (visible[near[:, 1:]] & is_other[..., None]).sum(axis=1)
    return np.concatenate([centred, total / np.maximum(count, 1)], axis=1)
