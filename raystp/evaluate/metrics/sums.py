"""Sums over blocks of spots, from which any resample of blocks is scored without reading the spots again.

PCC, MSE, MAE, RVD, spread and spot-wise PCC of a gene set follow from sums over spots. A section is reduced to such
sums per block once; drawing a block twice counts its sums twice. 1000 resamples of 785 genes are then a few small
matrix products, and sections of any size are pooled without holding them together. A point value is the draw in which
every block counts once.

RVD of a gene is the relative variance distance (Var(predicted) - Var(measured))^2 / Var(measured)^2. 0: the prediction
varies as much as the measurement; 1: it does not vary. Spread is the ratio of the standard deviations, predicted to
measured: below 1, the prediction varies less. Neither exists for a gene that is measured as constant.

A value that was not measured is NaN and is left out: each gene has its own number of spots. A gene without a measured
value has no metric, and a set's metric is the mean over the genes that have one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from raystp.evaluate.metrics.genes import FEWEST_SPOTS, NO_SPREAD, check_pair, spot_pcc

METRICS = ("PCC", "MSE", "MAE", "RVD", "spot-PCC", "spread")
"""The order of the metric axis below."""

MAX_VALUES = 2_000_000
"""Draws are computed in pieces of so many (draw, gene) values: 16 MB per temporary array."""


@dataclass(frozen=True)
class BlockSums:
    """Sums over the spots of each block; x is predicted and y measured, both minus a centre that all blocks share."""

    n: Float64[np.ndarray, "block count"]
    """Spots of each block: one column, or one per gene where some values are not measured."""
    x: Float64[np.ndarray, "block gene"]
    y: Float64[np.ndarray, "block gene"]
    xx: Float64[np.ndarray, "block gene"]
    yy: Float64[np.ndarray, "block gene"]
    xy: Float64[np.ndarray, "block gene"]
    absolute: Float64[np.ndarray, "block gene"]
    """Sum of |predicted - measured|; the squared error follows from the others."""
    spot: Float64[np.ndarray, "block sets"]
    """Sum of spot-wise PCC over each gene set."""
    spot_n: Float64[np.ndarray, "block sets"]
    """Spots with a spot-wise PCC."""
    constant_spots: Float64[np.ndarray, "block sets"]
    largest: Float64[np.ndarray, "block 2 gene"]
    """Largest absolute value, predicted and measured, or the centre's if larger: the reference of `NO_SPREAD`."""


@dataclass(frozen=True)
class MetricScores:
    """The metrics of each gene set, per draw, and how many values were constant."""

    values: Float64[np.ndarray, "draw metric sets"]
    constant: Int64[np.ndarray, "draw metric sets"]
    """PCC: constant genes. spot-PCC: constant spots. RVD and spread: genes measured as constant, which they leave out.
    Else 0."""


def sums(
    predicted: Float[np.ndarray, "spot gene"],
    measured: Float[np.ndarray, "spot gene"],
    *,
    block: Int64[np.ndarray, "spot"],
    centre: Float64[np.ndarray, "gene"],
    sets: Sequence[Int64[np.ndarray, "_"]],
) -> BlockSums:
    """Reduce one section to sums per block; `block` holds the numbers 0..b-1.

    `centre` is any typical value of each gene, the same for all sections; it avoids cancellation in the variances.
    """
    known = ~np.isnan(measured)
    complete = bool(known.all())
    if not complete:  # left out: 0 beside 0 adds nothing to any sum
        predicted, measured = np.where(known, predicted, 0.0), np.where(known, measured, 0.0)
    check_pair(predicted, measured)
    member = (block[None, :] == np.arange(block.max() + 1)[:, None]).astype(np.float64)  # block x spot
    x, y = predicted - centre, measured - centre
    if not complete:
        x, y = np.where(known, x, 0.0), np.where(known, y, 0.0)
    per_spot = [_spot_pcc(predicted, measured, known, genes) for genes in sets]
    largest = [np.abs(np.stack([predicted[row > 0], measured[row > 0]])).max(axis=1) for row in member]
    return BlockSums(
        n=member.sum(axis=1, keepdims=True) if complete else member @ known,
        x=member @ x,
        y=member @ y,
        xx=member @ np.square(x),
        yy=member @ np.square(y),
        xy=member @ (x * y),
        absolute=member @ np.abs(x - y),
        spot=member @ np.stack([pcc for pcc, _, _ in per_spot], axis=1),
        spot_n=member @ np.stack([scored.astype(np.float64) for _, _, scored in per_spot], axis=1),
        constant_spots=member @ np.stack([constant.astype(np.float64) for _, constant, _ in per_spot], axis=1),
        largest=np.maximum(np.stack(largest), np.abs(centre)),
    )


def _spot_pcc(
    predicted: Float[np.ndarray, "spot gene"],
    measured: Float[np.ndarray, "spot gene"],
    known: Bool[np.ndarray, "spot gene"],
    genes: Int64[np.ndarray, "_"],
) -> tuple[Float64[np.ndarray, "spot"], Bool[np.ndarray, "spot"], Bool[np.ndarray, "spot"]]:
    """Return spot-wise PCC over a set's genes, which spots are constant, and which have a PCC at all.

    Over the genes that every spot measured: spots of one section are compared over the same genes.
    """
    own = genes[known[:, genes].all(axis=0)]
    scored = np.full(len(predicted), bool(len(own)))
    if not len(own):
        return np.zeros(len(predicted)), np.zeros(len(predicted), bool), scored
    return *spot_pcc(predicted[:, own], measured[:, own]), scored


def join(parts: Sequence[BlockSums]) -> BlockSums:
    """Return the blocks of several sections in one: what `pooled` is computed from."""
    genes = max(part.n.shape[1] for part in parts)
    wide = [replace(part, n=np.broadcast_to(part.n, (len(part.n), genes))) for part in parts]
    return BlockSums(**{f.name: np.concatenate([part.__dict__[f.name] for part in wide]) for f in fields(BlockSums)})


def score(blocks: BlockSums, sets: Sequence[Int64[np.ndarray, "_"]]) -> MetricScores:
    """Return the scores of the spots themselves: the one draw in which each block counts once."""
    return scores_of_draws(blocks, np.ones((1, len(blocks.n))), sets)


def scores_of_draws(
    blocks: BlockSums, counts: Float64[np.ndarray, "draw block"], sets: Sequence[Int64[np.ndarray, "_"]]
) -> MetricScores:
    """Return the scores of each draw, in which each block counts as often as `counts` states."""
    floors = np.square(NO_SPREAD * blocks.largest.max(axis=0))
    pieces = -(-counts.shape[0] * blocks.x.shape[1] // MAX_VALUES)
    scored = [_scores(blocks, part, sets, floors) for part in np.array_split(counts, pieces)]
    return MetricScores(
        values=np.concatenate([part.values for part in scored]),
        constant=np.concatenate([part.constant for part in scored]),
    )


def _scores(
    blocks: BlockSums,
    counts: Float64[np.ndarray, "draw block"],
    sets: Sequence[Int64[np.ndarray, "_"]],
    floors: Float64[np.ndarray, "2 gene"],
) -> MetricScores:
    n = counts @ blocks.n  # (draw, 1), or (draw, gene)
    single = np.broadcast_to(n < FEWEST_SPOTS, (len(n), blocks.x.shape[1]))
    n = np.where(n > 0, n, np.nan)
    x, y = counts @ blocks.x / n, counts @ blocks.y / n
    xx, yy, xy = counts @ blocks.xx / n, counts @ blocks.yy / n, counts @ blocks.xy / n
    var_x, var_y = xx - x * x, yy - y * y
    constant_y = (var_y <= floors[1]) & ~single
    constant = ((var_x <= floors[0]) & ~single) | constant_y
    pcc = np.clip((xy - x * y) / np.sqrt(np.where(constant | single, np.inf, var_x * var_y)), -1.0, 1.0)
    pcc = np.where(single, np.nan, pcc)
    ratio = var_x / np.where(constant_y | single, np.nan, var_y)
    rvd, spread = np.square(ratio - 1.0), np.sqrt(np.maximum(ratio, 0.0))
    squared, absolute = np.maximum(xx - 2 * xy + yy, 0.0), counts @ blocks.absolute / n
    per_gene = _means_of_existing if single.any() else _means
    values = [per_gene(pcc, sets), per_gene(squared, sets), per_gene(absolute, sets), _means_of_existing(rvd, sets)]
    none = np.zeros(values[0].shape)
    without, spots = _counts(constant_y, sets), counts @ blocks.spot_n
    constants = [_counts(constant, sets), none, none, without, counts @ blocks.constant_spots, without]
    spot_means = counts @ blocks.spot / np.where(spots > 0, spots, np.nan)
    return MetricScores(
        values=np.stack([*values, spot_means, _means_of_existing(spread, sets)], axis=1),
        constant=np.stack(constants, axis=1).astype(np.int64),
    )


def _means(
    values: Float64[np.ndarray, "draw gene"], sets: Sequence[Int64[np.ndarray, "_"]]
) -> Float64[np.ndarray, "draw sets"]:
    return np.stack([values[:, genes].mean(axis=1) for genes in sets], axis=1)


def _means_of_existing(
    values: Float64[np.ndarray, "draw gene"], sets: Sequence[Int64[np.ndarray, "_"]]
) -> Float64[np.ndarray, "draw sets"]:
    """Return the means over values that are not NaN; NaN for a set that has none."""
    existing = _counts(~np.isnan(values), sets)
    total = np.stack([np.nansum(values[:, genes], axis=1) for genes in sets], axis=1)
    return total / np.where(existing > 0, existing, np.nan)


def _counts(
    flags: Bool[np.ndarray, "draw gene"], sets: Sequence[Int64[np.ndarray, "_"]]
) -> Float64[np.ndarray, "draw sets"]:
    return np.stack([flags[:, genes].sum(axis=1) for genes in sets], axis=1).astype(np.float64)
