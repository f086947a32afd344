"""Whether predictions of tiles that are marked `far` are worse than those of near tiles.

A tile is far if its distance to the reference index is beyond the 99th percentile of the index's own tiles. If the mark
is right, the error is larger on far tiles, and errors rise with the distance. Only tiles with measured spots count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from raystp.evaluate.metrics.genes import pcc_where_measured

FEWEST_TILES = 10
"""With fewer tiles on a side there is no PCC of it."""


@dataclass(frozen=True)
class FarTiles:
    """The tiles of a section with measured spots: prediction, truth, and how far each is from the reference."""

    predicted: Float[np.ndarray, "spot gene"]
    measured: Float[np.ndarray, "spot gene"]
    distance: Float[np.ndarray, "spot"]
    far: Bool[np.ndarray, "spot"]


@dataclass(frozen=True)
class FarScore:
    """Scores of far and of near tiles, in the columns of `FAR_SCORES`; None where a side has too few tiles."""

    model: str
    section: str
    """A section's name, or `pooled` over the tiles of all."""
    far: int
    near: int
    mse_far: float | None
    """Mean over the far tiles of their squared error, a mean over genes."""
    mse_near: float | None
    pcc_far: float | None
    """Mean over genes of the PCC over far tiles; None for fewer than `FEWEST_TILES`."""
    pcc_near: float | None
    rank_correlation: float | None
    """Spearman correlation of a tile's distance and its squared error; above 0 if far predictions are worse."""


def far_scores(model: str, sections: Mapping[str, FarTiles], pooled: str) -> list[FarScore]:
    """Return the scores of each section, and pooled over all tiles; nothing without a section."""
    if not sections:
        return []
    parts = [*sections.values()]
    return [_score(model, name, one) for name, one in [*sections.items(), (pooled, _joined(parts))]]


def _joined(parts: Sequence[FarTiles]) -> FarTiles:
    return FarTiles(
        np.concatenate([one.predicted for one in parts]),
        np.concatenate([one.measured for one in parts]),
        np.concatenate([one.distance for one in parts]),
        np.concatenate([one.far for one in parts]),
    )


def _score(model: str, section: str, tiles: FarTiles) -> FarScore:
    known = ~np.isnan(tiles.measured)
    error = np.where(known, np.square(tiles.measured.astype(np.float64) - tiles.predicted), 0.0).sum(axis=1)
    scored = known.any(axis=1)
    error = np.where(scored, error / np.maximum(known.sum(axis=1), 1), np.nan)
    far, near = tiles.far & scored, ~tiles.far & scored
    return FarScore(
        model,
        section,
        int(far.sum()),
        int(near.sum()),
        mse_far=_mean(error[far]),
        mse_near=_mean(error[near]),
        pcc_far=_pcc(tiles, far),
        pcc_near=_pcc(tiles, near),
        rank_correlation=_rank_correlation(tiles.distance[scored], error[scored]),
    )


def _mean(values: Float[np.ndarray, "_"]) -> float | None:
    return float(values.mean()) if len(values) else None


def _pcc(tiles: FarTiles, rows: Bool[np.ndarray, "spot"]) -> float | None:
    """Return the mean over genes of the PCC over some tiles; None for too few, or where no gene has one."""
    if int(rows.sum()) < FEWEST_TILES:
        return None
    pcc, _ = pcc_where_measured(tiles.predicted[rows], tiles.measured[rows])
    existing = pcc[~np.isnan(pcc)]
    return _mean(existing)


def _rank_correlation(x: Float[np.ndarray, "_"], y: Float[np.ndarray, "_"]) -> float | None:
    if len(x) < FEWEST_TILES:
        return None
    ranks = [rankdata(one) - (len(one) + 1) / 2 for one in (x, y)]
    scale = float(np.sqrt(np.square(ranks[0]).sum() * np.square(ranks[1]).sum()))
    return float((ranks[0] * ranks[1]).sum()) / scale if scale > 0 else None
