"""Linear completion: a ridge regression of each gene on the spot's other genes and on the neighbours' mean.

It is the honest baseline of SpaCKLE. It is trained like SpaCKLE: real entries are hidden at random, and the regression
predicts them from what is left. Values are centred by the mean of each gene's real entries; hidden and missing ones
are then 0, in training as in use.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64

from raystp.errors import ModelError
from raystp.models.arrays import Arrays
from raystp.models.completion.options import LinearOptions
from raystp.models.completion.values import (
    SectionValues,
    check_counted,
    keep_real,
    mask_rates,
    mean_of_real,
    nearest_spots,
    real_share,
)


@dataclass(frozen=True)
class LinearCompletion:
    """A fitted regression: one row of weights per input, one column per completed gene."""

    mean: Float64[np.ndarray, "gene"]
    """Mean of each gene's real entries over the training sections."""
    weights: Float64[np.ndarray, "input gene"]
    """Inputs are the spot's genes, then the neighbours' means. A gene's weight on itself is 0."""
    offset: Float64[np.ndarray, "gene"]
    neighbours: int

    def complete(self, section: SectionValues) -> Float32[np.ndarray, "spot gene"]:
        """Return the section with each missing entry predicted; it depends on this section alone."""
        inputs = _inputs(section, section.real, self.mean, self.neighbours)
        predicted = inputs @ self.weights + self.offset + self.mean
        return keep_real(section, predicted.astype(np.float32))

    def arrays(self) -> Arrays:
        """Return what `open_linear` needs."""
        return {"mean_of_real": self.mean, "weights": self.weights, "offset": self.offset}


def open_linear(arrays: Arrays, options: LinearOptions) -> LinearCompletion:
    """Return a stored regression, ready to complete sections; raises ModelError where an array is absent."""
    absent = sorted({"mean_of_real", "weights", "offset"} - arrays.keys())
    if absent:
        msg = f"the stored arrays are not those of a linear completion: {', '.join(absent)} absent"
        raise ModelError(msg)
    mean, weights, offset = (np.asarray(arrays[name], np.float64) for name in ("mean_of_real", "weights", "offset"))
    return LinearCompletion(mean, weights, offset, options.neighbours)


def fit_linear(sections: list[SectionValues], options: LinearOptions) -> LinearCompletion:
    """Fit on the training sections, under random masks of each; raises ModelError for a gene never counted."""
    share = real_share(sections)
    check_counted(share)
    mean = mean_of_real(sections)
    rng, rates = np.random.default_rng(options.seed), mask_rates(share)
    inputs, targets, hidden = [], [], []
    for section in sections:
        for _ in range(options.draws):
            masked = section.real & (rng.random(section.values.shape) < rates)
            inputs.append(_inputs(section, section.real & ~masked, mean, options.neighbours))
            targets.append(section.values - mean)
            hidden.append(masked)
    weights, offset = _solve(np.concatenate(inputs), np.concatenate(targets), np.concatenate(hidden), options.alpha)
    return LinearCompletion(mean, weights, offset, options.neighbours)


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
    section: SectionValues,
    visible: Bool[np.ndarray, "spot gene"],
    mean: Float64[np.ndarray, "gene"],
    neighbours: int,
) -> Float64[np.ndarray, "spot input"]:
    """Return the spot's visible genes and the mean of its neighbours' visible ones, both centred; 0 where none is."""
    centred = np.where(visible, section.values - mean, 0.0)
    near = nearest_spots(section.xy, neighbours)
    total, count = np.zeros_like(centred), np.zeros(centred.shape, np.int64)
    for column in near.T[1:]:  # one neighbour at a time: all at once need neighbours times the memory
        is_other = (column != near[:, 0])[:, None]
        total += np.where(is_other, centred[column], 0.0)
        count += visible[column] & is_other
    return np.concatenate([centred, total / np.maximum(count, 1)], axis=1)
