"""Every metric of every gene set: of one section, as the mean over sections, and of all their spots pooled.

From the sums of each section over its blocks (`sums.py`), and from how often each block or section is drawn.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from raystp.evaluate.metrics.intervals import FEWEST_BLOCKS, FEWEST_UNITS
from raystp.evaluate.metrics.sums import BlockSums, join, score, scores_of_draws


@dataclass(frozen=True)
class SetScores:
    """Every metric of every gene set, on one section or over several; the metrics in the order of `sums.METRICS`."""

    values: Float64[np.ndarray, "metric sets"]
    constant: Int64[np.ndarray, "metric sets"]
    draws: Float64[np.ndarray, "draw metric sets"] | None
    n: int


def mean_of_existing(values: Float64[np.ndarray, "section *shape"]) -> Float64[np.ndarray, "*shape"]:
    """Return the mean over sections that have a value, NaN where none has."""
    if not np.isnan(values).any():
        return np.asarray(values.mean(axis=0))
    count = (~np.isnan(values)).sum(axis=0)
    return np.asarray(np.nansum(values, axis=0) / np.where(count > 0, count, np.nan))


def section_set_scores(
    part: BlockSums, block_draws: Float64[np.ndarray, "draw block"], set_columns: list[Int64[np.ndarray, "_"]]
) -> SetScores:
    """Score one section; there are no draws where it has fewer than `FEWEST_BLOCKS` blocks."""
    point = score(part, set_columns)
    draws = scores_of_draws(part, block_draws, set_columns).values if len(part.n) >= FEWEST_BLOCKS else None
    return SetScores(point.values[0], point.constant[0], draws, _spots(part))


def pooled_set_scores(
    parts: list[BlockSums],
    block_draws: list[Float64[np.ndarray, "draw _"]],
    section_draws: Float64[np.ndarray, "draw section"] | None,
    set_columns: list[Int64[np.ndarray, "_"]],
) -> SetScores:
    """Score the spots of all sections as one; sections are drawn, or blocks of them where `section_draws` is None."""
    joined = join(parts)
    point = score(joined, set_columns)
    draws = None
    if section_draws is not None:
        counts = np.repeat(section_draws, [len(part.n) for part in parts], axis=1)
        draws = scores_of_draws(joined, counts, set_columns).values
    elif all(len(part.n) >= FEWEST_BLOCKS for part in parts):
        draws = scores_of_draws(joined, np.concatenate(block_draws, axis=1), set_columns).values
    return SetScores(point.values[0], point.constant[0], draws, sum(_spots(part) for part in parts))


def _spots(part: BlockSums) -> int:
    """Return the number of spots with any measured gene."""
    return int(part.n.sum(axis=0).max())


def mean_set_scores(each: list[SetScores], section_draws: Float64[np.ndarray, "draw section"] | None) -> SetScores:
    """Average the scores of the sections that have one; sections are drawn, or each has its own draws of blocks."""
    values = np.stack([scored.values for scored in each])
    draws = None
    if section_draws is not None:
        draws = _weighted_mean(section_draws, values)
        draws[:, (~np.isnan(values)).sum(axis=0) < FEWEST_UNITS] = np.nan  # too few sections measured the genes
    else:
        within = [scored.draws for scored in each if scored.draws is not None]
        if len(within) == len(each):
            draws = mean_of_existing(np.stack(within))
    constant = np.sum([scored.constant for scored in each], axis=0)
    return SetScores(mean_of_existing(values), constant, draws, sum(scored.n for scored in each))


def _weighted_mean(
    weights: Float64[np.ndarray, "draw section"], values: Float64[np.ndarray, "section metric sets"]
) -> Float64[np.ndarray, "draw metric sets"]:
    """Return the mean over sections that have a value, NaN where none of the drawn ones has."""
    existing = ~np.isnan(values)
    if existing.all():
        return np.asarray(np.tensordot(weights / weights.sum(axis=1, keepdims=True), values, axes=1))
    total = np.tensordot(weights, existing.astype(np.float64), axes=1)
    summed = np.tensordot(weights, np.nan_to_num(values), axes=1)
    return np.asarray(summed / np.where(total > 0, total, np.nan))
