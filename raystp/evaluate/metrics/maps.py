"""Tests of a map of a slide: overlap with a known region, deletion of its highest tiles, stability over seeds.

A map has one value per tile; higher is more. Each score comes with its chance level, because a map alone is no
evidence: attention is not explanation. No result depends on the order of tiles, equal values included.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

from raystp.errors import SectionError


@dataclass(frozen=True)
class MapOverlap:
    """Agreement of a map with a region; each `chance_` value is the average for a map of random values."""

    iou: float
    """Of the region and the map's highest tiles: tiles in both over tiles in either."""
    chance_iou: float
    average_precision: float
    chance_average_precision: float
    """The region's share of the tiles."""
    auc: float
    """How often a tile of the region is above a tile outside it; chance is 0.5."""
    top: int
    """Number of tiles that count as the map's highest."""
    tiles: int


@dataclass(frozen=True)
class DeletionCurves:
    """A model's prediction for a slide with ever more of its tiles, ordered by the map and at random."""

    kept: Int64[np.ndarray, "step"]
    """Number of tiles that the model gets, from few to all."""
    insertion: Float64[np.ndarray, "step"]
    """With the highest tiles only; rises early if the map matters."""
    deletion: Float64[np.ndarray, "step"]
    """With the lowest tiles only; falls early if the map matters."""
    random: Float64[np.ndarray, "draw step"]
    """With random tiles: the chance level of both."""

    def areas(self) -> dict[str, float]:
        """Return the area under each curve over the share of tiles, and p values against random orders.

        `insertion_p` is the share of random orders with an area at least as large as that of insertion, `deletion_p` at
        most as large as that of deletion. Both count the map itself, so neither is 0. `random_sd` is the standard
        deviation over random orders.
        """
        insertion, deletion = self._area(self.insertion), self._area(self.deletion)
        null = self._area(self.random)
        draws = len(self.random) + 1
        return {
            "insertion": float(insertion),
            "deletion": float(deletion),
            "random": float(null.mean()),
            "random_sd": float(null.std()),
            "insertion_p": float(((null >= insertion).sum() + 1) / draws),
            "deletion_p": float(((null <= deletion).sum() + 1) / draws),
        }

    def _area(self, values: Float64[np.ndarray, "*draw step"]) -> Float64[np.ndarray, "*draw"]:
        share = (self.kept - self.kept[0]) / max(int(self.kept[-1] - self.kept[0]), 1)
        return np.asarray(np.trapezoid(values, share, axis=-1), dtype=np.float64)


@dataclass(frozen=True)
class MapStability:
    """Agreement of maps of one slide from models that differ only in their seed (or in their training split)."""

    mean: float
    """Spearman's correlation, mean over all pairs of maps."""
    least: float
    """The lowest correlation of a pair."""
    pairs: int
    constant: int
    """Maps without spread, which have no ranks: each pair with one counts as 0."""


def overlap(values: Float[np.ndarray, "tile"], region: Bool[np.ndarray, "_"], *, top: float = 0.1) -> MapOverlap:
    """Compare a map with an annotated or simulated region; the share `top` of tiles counts as the map's highest.

    If several tiles share the threshold value, each counts in part. Raises SectionError for a map with nan or infinity,
    a region without tiles or of all tiles, and a `top` outside (0, 1].
    """
    _check_map(values)
    inside = int(region.sum())
    if len(region) != len(values) or not 0 < inside < len(region):
        msg = (
            f"a map of {len(values)} tiles was compared with a region of {inside} of {len(region)} tiles; the region "
            "must cover the same tiles, with at least one inside and one outside"
        )
        raise SectionError(msg)
    if not 0 < top <= 1:
        msg = f"top: the share of a map's highest tiles must be above 0 and at most 1, got {top}"
        raise SectionError(msg)
    count, share = max(1, round(top * len(values))), inside / len(values)
    hits = _hits(values, region, count)
    chance_hits = count * share
    return MapOverlap(
        iou=hits / (count + inside - hits),
        chance_iou=chance_hits / (count + inside - chance_hits),
        average_precision=float(average_precision_score(region, values)),
        chance_average_precision=share,
        auc=float(roc_auc_score(region, values)),
        top=count,
        tiles=len(values),
    )


def deletion_curves(
    predict: Callable[[Float[np.ndarray, "_ feature"]], float],
    features: Float[np.ndarray, "tile feature"],
    values: Float[np.ndarray, "_"],
    *,
    rng: np.random.Generator,
    steps: int = 20,
    draws: int = 20,
) -> DeletionCurves:
    """Return what `predict` (tiles of a bag -> one gene) gives for ever more tiles, ordered by the map and at random.

    `predict` is called at most (2 + draws) x steps times, never with an empty bag. Tiles with equal values are ordered
    at random. Raises SectionError for a map with nan or infinity or of other tiles, and for fewer than 2 tiles, 1 step
    or 1 draw.
    """
    _check_map(values)
    if len(values) != len(features) or len(values) < 2 or min(steps, draws) < 1:  # noqa: PLR2004 -- one tile has no order
        msg = (
            f"deletion curves need a map of the slide's tiles, at least 2 tiles, 1 step and 1 draw, got a map of "
            f"{len(values)} for {len(features)} tiles, {steps} steps and {draws} draws"
        )
        raise SectionError(msg)
    shares = np.linspace(0, 1, steps + 1)
    kept = np.unique(np.clip(np.rint(shares * len(values)), 1, len(values))).astype(np.int64)
    order = np.lexsort((rng.random(len(values)), -values))

    def curve(ranked: Int64[np.ndarray, "tile"]) -> list[float]:
        return [float(predict(features[np.sort(ranked[:count])])) for count in kept.tolist()]

    random = [curve(rng.permutation(len(values))) for _ in range(draws)]
    return DeletionCurves(kept, np.array(curve(order)), np.array(curve(order[::-1])), np.array(random))


def stability(maps: Sequence[Float[np.ndarray, "tile"]]) -> MapStability:
    """Return the agreement of several maps of the same tiles; raise SectionError for fewer than 2, or other tiles."""
    lengths = {len(values) for values in maps}
    if len(maps) < 2 or len(lengths) > 1:  # noqa: PLR2004 -- a pair
        msg = f"stability compares at least 2 maps of the same tiles, got {len(maps)} maps of {sorted(lengths)} tiles"
        raise SectionError(msg)
    for values in maps:
        _check_map(values)
    ranks = np.stack([rankdata(values) for values in maps])
    ranks -= ranks.mean(axis=1, keepdims=True)
    length = np.linalg.norm(ranks, axis=1)
    unit = ranks / np.where(length > 0, length, 1.0)[:, None]
    pairs = (unit @ unit.T)[np.triu_indices(len(maps), k=1)]
    return MapStability(float(pairs.mean()), float(pairs.min()), len(pairs), int((length == 0).sum()))


def _hits(values: Float[np.ndarray, "tile"], region: Bool[np.ndarray, "tile"], count: int) -> float:
    """Return how many of the `count` highest tiles are in the region, averaged over the orders of equal values."""
    threshold = np.partition(values, len(values) - count)[len(values) - count]
    above, equal = values > threshold, values == threshold
    return float(region[above].sum() + (count - above.sum()) * region[equal].mean())


def _check_map(values: Float[np.ndarray, "tile"]) -> None:
    bad = int((~np.isfinite(values)).sum())
    if bad or not len(values):
        msg = f"a map has nan or infinity at {bad} of {len(values)} tiles; every tile needs a finite value"
        raise SectionError(msg)
