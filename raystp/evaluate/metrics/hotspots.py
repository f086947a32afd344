"""Whether a map of a slide shows what it is said to show: against a known region, by taking tiles away, over seeds.

A map is a value per tile; higher is more. Each figure comes with what chance gives, as a map by itself is no evidence:
attention is not explanation. Nothing depends on the order of tiles, equal values included.
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
    """How a map agrees with a region; each `chance_` is what a map of random values has on average."""

    iou: float
    """Of the region and the map's highest tiles: tiles in both over tiles in either."""
    chance_iou: float
    average_precision: float
    chance_average_precision: float
    """The region's share of the tiles."""
    auc: float
    """How often a tile of the region is above one outside it; chance is 0.5."""
    top: int
    """Tiles that were taken as the map's highest."""
    tiles: int


@dataclass(frozen=True)
class DeletionCurves:
    """What a predictor says of a slide while tiles are taken away, or put back, from the map's highest on."""

    kept: Int64[np.ndarray, "step"]
    """Tiles that are there, from few to all."""
    insertion: Float64[np.ndarray, "step"]
    """With the highest tiles alone; a map that matters rises early."""
    deletion: Float64[np.ndarray, "step"]
    """With the lowest tiles alone; a map that matters falls early."""
    random: Float64[np.ndarray, "draw step"]
    """With random tiles: the null of both."""

    def areas(self) -> dict[str, float]:
        """Return the area under each curve over the share of tiles, and how often a random order does as well.

        `insertion_p` is the share of random orders with an area of insertion as large, `deletion_p` as small; both
        count the map itself, so neither is 0. `random_sd` is how far random orders spread.
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
    """How alike maps of one slide are, from models that differ in their seed alone (or in their training split)."""

    mean: float
    """Spearman's correlation, over all pairs of maps."""
    least: float
    pairs: int
    constant: int
    """Maps without spread, which have no ranks: each pair with one counts as 0."""


def overlap(values: Float[np.ndarray, "tile"], region: Bool[np.ndarray, "_"], *, top: float = 0.1) -> MapOverlap:
    """Compare a map with an annotated or planted region; `top` is the share of tiles that counts as the map's highest.

    Where the value at the border is shared by several tiles, each counts in part. Raises SectionError for a map that
    holds no numbers, a region of no tile or of all, and a `top` that is no share.
    """
    _check_map(values)
    inside = int(region.sum())
    if len(region) != len(values) or not 0 < inside < len(region):
        msg = (
            f"a map of {len(values)} tiles was compared with a region of {inside} of {len(region)} tiles: wanted is "
            "a region of the same tiles, with some inside and some outside"
        )
        raise SectionError(msg)
    if not 0 < top <= 1:
        msg = f"the highest tiles of a map are a share above 0 and up to 1, got {top}"
        raise SectionError(msg)
    count, share = max(1, round(top * len(values))), inside / len(values)
    hits = _hits(values, region, count)
    by_chance = count * share
    return MapOverlap(
        iou=hits / (count + inside - hits),
        chance_iou=by_chance / (count + inside - by_chance),
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
    """Return what `predict` (a bag's tiles -> one gene) says of ever more tiles, by the map and in random orders.

    It is called (2 + draws) x steps times at most, never with an empty bag; tiles of one value come in random order.
    Raises SectionError for a map that holds no numbers or is of other tiles, and for less than 2 tiles or 1 step.
    """
    _check_map(values)
    if len(values) != len(features) or len(values) < 2 or min(steps, draws) < 1:  # noqa: PLR2004 -- one cannot be ranked
        msg = (
            f"curves need a map of the slide's tiles, 2 tiles and 1 step and draw at least, got a map of {len(values)} "
            f"for {len(features)} tiles, {steps} steps and {draws} draws"
        )
        raise SectionError(msg)
    shares = np.linspace(0, 1, steps + 1)
    kept = np.unique(np.clip(np.rint(shares * len(values)), 1, len(values))).astype(np.int64)
    order = np.lexsort((rng.random(len(values)), -values))

    def along(ranked: Int64[np.ndarray, "tile"]) -> list[float]:
        return [float(predict(features[np.sort(ranked[:count])])) for count in kept.tolist()]

    random = [along(rng.permutation(len(values))) for _ in range(draws)]
    return DeletionCurves(kept, np.array(along(order)), np.array(along(order[::-1])), np.array(random))


def stability(maps: Sequence[Float[np.ndarray, "tile"]]) -> MapStability:
    """Return how alike several maps of the same tiles are; raises SectionError for less than 2, or of other tiles."""
    lengths = {len(values) for values in maps}
    if len(maps) < 2 or len(lengths) > 1:  # noqa: PLR2004 -- a pair
        msg = f"stability compares 2 maps or more of the same tiles, got {len(maps)} of {sorted(lengths)} tiles"
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
    """Return how many of the `count` highest tiles are in the region, on average over the orders of equal ones."""
    border = np.partition(values, len(values) - count)[len(values) - count]
    above, level = values > border, values == border
    return float(region[above].sum() + (count - above.sum()) * region[level].mean())


def _check_map(values: Float[np.ndarray, "tile"]) -> None:
    bad = int((~np.isfinite(values)).sum())
    if bad or not len(values):
        msg = f"a map holds nan or infinity at {bad} of {len(values)} tiles: a finite value for each tile is wanted"
        raise SectionError(msg)
