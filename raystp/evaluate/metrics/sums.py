"""What a block of spots adds up to, so that any resample of blocks is scored without touching spots again.

PCC, MSE, MAE, RVD and spot-wise PCC of a gene set all follow from sums over spots. A section is reduced to such sums
per block once; drawing a block twice is counting its sums twice. 1000 resamples of 785 genes are then a few small
matrix products, sections of any size are pooled without holding them together, and a point value is the draw in which
every block counts once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from raystp.evaluate.metrics.genes import NO_SPREAD, check_pair, spot_pcc

METRICS = ("PCC", "MSE", "MAE", "RVD", "spot-PCC")
"""The order of the metric axis below."""

VALUES_AT_ONCE = 2_000_000
"""Draws are taken so many (draw, gene) values at a time: 16 MB per temporary."""


@dataclass(frozen=True)
class BlockSums:
    """Sums over the spots of each block, x predicted and y measured, both less a centre that all blocks share."""

    n: Float64[np.ndarray, "block 1"]
    x: Float64[np.ndarray, "block gene"]
    y: Float64[np.ndarray, "block gene"]
    xx: Float64[np.ndarray, "block gene"]
    yy: Float64[np.ndarray, "block gene"]
    xy: Float64[np.ndarray, "block gene"]
    absolute: Float64[np.ndarray, "block gene"]
    """Sum of |predicted - measured|; the squared error follows from the others."""
    spot: Float64[np.ndarray, "block sets"]
    """Sum of spot-wise PCC over each gene set."""
    constant_spots: Float64[np.ndarray, "block sets"]
    top: Float64[np.ndarray, "block 2 gene"]
    """Largest absolute value, predicted and measured, or the centre's if larger: what `NO_SPREAD` is a share of."""


@dataclass(frozen=True)
class MetricScores:
    """The metrics of each gene set, per draw, and how many values had no spread."""

    values: Float64[np.ndarray, "draw metric sets"]
    constant: Int64[np.ndarray, "draw metric sets"]
    """PCC: genes; spot-PCC: spots; RVD: genes measured without spread, which it leaves out; else 0."""


def sums(
    predicted: Float[np.ndarray, "spot gene"],
    measured: Float[np.ndarray, "spot gene"],
    *,
    block: Int64[np.ndarray, "spot"],
    centre: Float64[np.ndarray, "gene"],
    sets: Sequence[Int64[np.ndarray, "_"]],
) -> BlockSums:
    """Reduce one section to sums per block, `block` holding 0..b-1.

    `centre` is any typical value of each gene, the same for all sections; it keeps the variances from cancelling.
    """
    check_pair(predicted, measured)
    holds = (block[None, :] == np.arange(block.max() + 1)[:, None]).astype(np.float64)  # block x spot
    x, y = predicted - centre, measured - centre
    per_spot = [spot_pcc(predicted[:, genes], measured[:, genes]) for genes in sets]
    largest = [np.abs(np.stack([predicted[row > 0], measured[row > 0]])).max(axis=1) for row in holds]
    return BlockSums(
        n=holds.sum(axis=1, keepdims=True),
        x=holds @ x,
        y=holds @ y,
        xx=holds @ np.square(x),
        yy=holds @ np.square(y),
        xy=holds @ (x * y),
        absolute=holds @ np.abs(x - y),
        spot=holds @ np.stack([pcc for pcc, _ in per_spot], axis=1),
        constant_spots=holds @ np.stack([flat.astype(np.float64) for _, flat in per_spot], axis=1),
        top=np.maximum(np.stack(largest), np.abs(centre)),
    )


def join(parts: Sequence[BlockSums]) -> BlockSums:
    """Return the blocks of several sections, one below the other: what `pooled` is computed from."""
    return BlockSums(**{f.name: np.concatenate([part.__dict__[f.name] for part in parts]) for f in fields(BlockSums)})


def score(blocks: BlockSums, sets: Sequence[Int64[np.ndarray, "_"]]) -> MetricScores:
    """Return the scores of the spots as they are: the one draw in which each block counts once."""
    return scores_of_draws(blocks, np.ones((1, len(blocks.n))), sets)


def scores_of_draws(
    blocks: BlockSums, counts: Float64[np.ndarray, "draw block"], sets: Sequence[Int64[np.ndarray, "_"]]
) -> MetricScores:
    """Return the scores of each draw, in which each block counts as often as `counts` says."""
    floors = np.square(NO_SPREAD * blocks.top.max(axis=0))
    pieces = -(-counts.shape[0] * blocks.x.shape[1] // VALUES_AT_ONCE)
    found = [_scores(blocks, part, sets, floors) for part in np.array_split(counts, pieces)]
    return MetricScores(
        values=np.concatenate([part.values for part in found]),
        constant=np.concatenate([part.constant for part in found]),
    )


def _scores(
    blocks: BlockSums,
    counts: Float64[np.ndarray, "draw block"],
    sets: Sequence[Int64[np.ndarray, "_"]],
    floors: Float64[np.ndarray, "2 gene"],
) -> MetricScores:
    n = counts @ blocks.n  # (draw, 1)
    x, y = counts @ blocks.x / n, counts @ blocks.y / n
    xx, yy, xy = counts @ blocks.xx / n, counts @ blocks.yy / n, counts @ blocks.xy / n
    var_x, var_y = xx - x * x, yy - y * y
    flat_y = var_y <= floors[1]
    flat = (var_x <= floors[0]) | flat_y
    pcc = np.clip((xy - x * y) / np.sqrt(np.where(flat, np.inf, var_x * var_y)), -1.0, 1.0)
    ratio = np.square(var_x / np.where(flat_y, np.nan, var_y) - 1.0)
    squared, absolute = np.maximum(xx - 2 * xy + yy, 0.0), counts @ blocks.absolute / n
    values = [_means(pcc, sets), _means(squared, sets), _means(absolute, sets), _means_where_any(ratio, sets)]
    none = np.zeros(values[0].shape)
    constant = [_counts(flat, sets), none, none, _counts(flat_y, sets), counts @ blocks.constant_spots]
    return MetricScores(
        values=np.stack([*values, counts @ blocks.spot / n], axis=1),
        constant=np.stack(constant, axis=1).astype(np.int64),
    )


def _means(
    values: Float64[np.ndarray, "draw gene"], sets: Sequence[Int64[np.ndarray, "_"]]
) -> Float64[np.ndarray, "draw sets"]:
    return np.stack([values[:, genes].mean(axis=1) for genes in sets], axis=1)


def _means_where_any(
    values: Float64[np.ndarray, "draw gene"], sets: Sequence[Int64[np.ndarray, "_"]]
) -> Float64[np.ndarray, "draw sets"]:
    """Return the means over values that exist; NaN where a set has none."""
    there = _counts(~np.isnan(values), sets)
    total = np.stack([np.nansum(values[:, genes], axis=1) for genes in sets], axis=1)
    return total / np.where(there > 0, there, np.nan)


def _counts(
    flags: Bool[np.ndarray, "draw gene"], sets: Sequence[Int64[np.ndarray, "_"]]
) -> Float64[np.ndarray, "draw sets"]:
    return np.stack([flags[:, genes].sum(axis=1) for genes in sets], axis=1).astype(np.float64)
