"""PCC of single genes and of gene sets in one section, with the section's own bootstrap interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64

from raystp.evaluate.metrics.intervals import FEWEST_BLOCKS, LEVELS, blocks, resample
from raystp.evaluate.metrics.score import SectionOutcome
from raystp.evaluate.metrics.sums import METRICS, score, scores_of_draws, sums
from raystp.missing import column_means

GENES_AT_ONCE = 256
"""Limits the draws in memory to 12 MB for 1000 draws."""


@dataclass(frozen=True)
class GeneIntervals:
    """PCC per column, and its 95 % interval; NaN where there is none."""

    pcc: Float64[np.ndarray, "gene"]
    low: Float64[np.ndarray, "gene"]
    high: Float64[np.ndarray, "gene"]


def gene_scores(
    outcome: SectionOutcome, sets: Sequence[Int64[np.ndarray, "_"]], *, rng: np.random.Generator, draws: int
) -> GeneIntervals:
    """Return the scores of each gene, then those of each set's mean over its genes.

    The interval is a bootstrap of square blocks of spots within the section; all genes share the draws. A section that
    is too small for blocks has none.
    """
    predicted, measured = with_set_means(outcome, sets)
    block = blocks(outcome.xy)
    counts = resample([int(block.max()) + 1], draws, rng) if block.max() + 1 >= FEWEST_BLOCKS else None
    parts = []
    for first in range(0, predicted.shape[1], GENES_AT_ONCE):
        columns = slice(first, first + GENES_AT_ONCE)
        parts.append(_scores(predicted[:, columns], measured[:, columns], block, counts))
    return GeneIntervals(*np.concatenate(parts, axis=1))


def with_set_means(
    outcome: SectionOutcome, sets: Sequence[Int64[np.ndarray, "_"]]
) -> tuple[Float[np.ndarray, "spot column"], Float[np.ndarray, "spot column"]]:
    """Return predicted and measured with a column more per set: the mean over those genes that the spot has."""
    known = ~np.isnan(outcome.measured)
    means = [outcome.predicted.astype(np.float64)], [outcome.measured.astype(np.float64)]
    for genes in sets:
        own = np.where(known[:, genes], outcome.predicted[:, genes], np.nan)
        truth = column_means(outcome.measured[:, genes].T)
        means[0].append(np.nan_to_num(column_means(own.T))[:, None])
        means[1].append(truth[:, None])
    return np.concatenate(means[0], axis=1), np.concatenate(means[1], axis=1)


def _scores(
    predicted: Float[np.ndarray, "spot gene"],
    measured: Float[np.ndarray, "spot gene"],
    block: Int64[np.ndarray, "spot"],
    counts: Float64[np.ndarray, "draw block"] | None,
) -> Float64[np.ndarray, "3 gene"]:
    single = [np.array([gene]) for gene in range(predicted.shape[1])]
    reduced = sums(predicted, measured, block=block, centre=np.nan_to_num(column_means(measured)), sets=single)
    metric = METRICS.index("PCC")
    pcc = score(reduced, single).values[0, metric]
    if counts is None:
        return np.stack([pcc, np.full(len(pcc), np.nan), np.full(len(pcc), np.nan)])
    drawn = scores_of_draws(reduced, counts, single).values[:, metric]
    ends = np.full((2, len(pcc)), np.nan)
    exist = ~np.isnan(pcc)
    ends[:, exist] = np.nanquantile(drawn[:, exist], LEVELS, axis=0)
    return np.concatenate([pcc[None], ends])
