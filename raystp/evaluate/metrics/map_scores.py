"""Scores of attention maps: rows of the scores table, with chance as their null, and lines for the summary.

Three tests of a map (`maps.py`): overlap with the spots where a simulated cohort expresses a gene most; the prediction
without the map's highest tiles; agreement between models that differ only in their seed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32

from raystp.evaluate.metrics.maps import MapOverlap, MapStability, deletion_curves, overlap, stability
from raystp.evaluate.metrics.score import MEAN, ScoreLabel, ScoreRow
from raystp.tables import MAPS

REGION_SHARE = 0.2
"""A gene's region is this share of a section's spots: those with its highest simulated expression."""

MAX_GENES, MAX_SLIDES = 8, 8
"""Deletion and stability are tested on at most so many genes and slides."""

RANDOM_ORDERS = 19
"""Random orders beside each curve: if none is as low, p is 1/20."""


@runtime_checkable
class SlideMapper(Protocol):
    """A model with maps of a slide, those in `MAPS` among them."""

    def maps(
        self, features: Float[np.ndarray, "tile feature"], genes: Sequence[str] | None = None
    ) -> dict[str, Float32[np.ndarray, "tile gene"]]:
        """Return each map, a column per gene."""
        ...

    def removable(
        self, features: Float[np.ndarray, "tile feature"], gene: str
    ) -> tuple[Float32[np.ndarray, "tile 2"], Callable[[Float[np.ndarray, "_ 2"]], float]]:
        """Return one gene's parts per tile, and the function from the parts of any tiles to the prediction."""
        ...


@dataclass(frozen=True)
class MapScores:
    """Rows for the scores table, and lines for the summary."""

    rows: list[ScoreRow]
    lines: list[str]

    def __add__(self, other: "MapScores") -> "MapScores":
        return MapScores(self.rows + other.rows, self.lines + other.lines)


NO_MAPS = MapScores([], [])


def genes_to_test(
    panel: Sequence[str], variance: Float[np.ndarray, "gene"], *, planted: Sequence[str], listed: Sequence[str]
) -> list[str]:
    """Return the genes whose maps are tested: planted ones, else those that the config lists, else highest variance."""
    chosen = [gene for gene in planted if gene in panel] or [gene for gene in listed if gene in panel]
    order = np.argsort(-variance, kind="stable").tolist()
    return (chosen or [panel[gene] for gene in order])[:MAX_GENES]


def overlap_scores(
    label: ScoreLabel,
    sections: Iterable[tuple[Mapping[str, Float[np.ndarray, "spot gene"]], Float[np.ndarray, "spot gene"]]],
) -> MapScores:
    """Return AUC and IoU of each map with the simulated regions, means over genes and sections.

    A section is its maps and its simulated expression: spots in the same order, columns the planted genes.
    """
    overlaps: dict[str, list[MapOverlap]] = {name: [] for name in MAPS}
    for maps, planted in sections:
        for name, column in product(MAPS, range(planted.shape[1])):
            overlaps[name].append(_region_overlap(maps[name][:, column], planted[:, column]))
    return sum((_overlap_score(label, name, found) for name, found in overlaps.items() if found), NO_MAPS)


def deletion_scores(
    label: ScoreLabel,
    model: SlideMapper,
    slides: Iterable[Float[np.ndarray, "tile feature"]],
    genes: Sequence[str],
    *,
    seed: int,
) -> MapScores:
    """Return what remains of the slides' predictions as each map's highest tiles are removed.

    The value is the mean along the deletion curve, in standard deviations of the training labels; its null is that of
    random orders of the same tiles.
    """
    areas: dict[str, list[dict[str, float]]] = {name: [] for name in MAPS}
    tiles = 0
    for features in slides:
        tiles += len(features)
        maps = model.maps(features, list(genes))
        for (column, gene), name in product(enumerate(genes), MAPS):
            parts, predict = model.removable(features, gene)
            rng = np.random.default_rng([seed, column])
            curves = deletion_curves(predict, parts, maps[name][:, column], rng=rng, draws=RANDOM_ORDERS)
            areas[name].append(curves.areas())
    return sum((_deletion_score(label, name, found, tiles) for name, found in areas.items() if found), NO_MAPS)


def stability_scores(
    label: ScoreLabel,
    models: Mapping[int, SlideMapper],
    slides: Iterable[Float[np.ndarray, "tile feature"]],
    genes: Sequence[str],
) -> MapScores:
    """Return the rank correlation between the maps of models that differ only in their seed, seed -> model."""
    found: dict[str, list[MapStability]] = {name: [] for name in MAPS}
    tiles = 0
    for features in slides:
        tiles += len(features)
        maps = [model.maps(features, list(genes)) for model in models.values()]
        for column, name in product(range(len(genes)), MAPS):
            found[name].append(stability([each[name][:, column] for each in maps]))
    seeds = ", ".join(str(seed) for seed in models)
    return sum(
        (_stability_score(label, name, each, seeds=seeds, tiles=tiles) for name, each in found.items() if each), NO_MAPS
    )


def _region_overlap(values: Float[np.ndarray, "spot"], planted: Float[np.ndarray, "spot"]) -> MapOverlap:
    count = max(1, round(REGION_SHARE * len(planted)))
    region = np.zeros(len(planted), bool)
    region[np.argsort(-planted, kind="stable")[:count]] = True
    return overlap(values, region, top=REGION_SHARE)


def _overlap_score(label: ScoreLabel, name: str, overlaps: list[MapOverlap]) -> MapScores:
    auc = float(np.mean([one.auc for one in overlaps]))
    iou, chance = float(np.mean([one.iou for one in overlaps])), float(np.mean([one.chance_iou for one in overlaps]))
    line = (
        f"`{label.model}` {name}: over {len(overlaps)} planted genes and sections, AUC {auc:.3f} (chance 0.5) and IoU "
        f"{iou:.3f} (chance {chance:.3f}) with the {REGION_SHARE:.0%} of spots that have the highest simulated "
        "expression."
    )
    base = (label.protocol, label.panel, label.model, MEAN, "planted")
    tiles = sum(one.tiles for one in overlaps)
    rows = [
        ScoreRow(*base, f"{name} AUC", auc, null_mean=0.5, n=tiles),
        ScoreRow(*base, f"{name} IoU", iou, null_mean=chance, n=tiles),
    ]
    return MapScores(rows, [line])


def _deletion_score(label: ScoreLabel, name: str, areas: list[dict[str, float]], tiles: int) -> MapScores:
    left, random, spread = (
        float(np.mean([each[key] for each in areas])) for key in ("deletion", "random", "random_sd")
    )
    lower = sum(each["deletion_p"] <= 1 / (RANDOM_ORDERS + 1) + 1e-9 for each in areas)
    line = (
        f"`{label.model}` {name}: as its highest tiles are removed the slide's prediction falls to {left:+.3f} sd of "
        f"the labels (mean of the curve), with random tiles to {random:+.3f}; lower than all {RANDOM_ORDERS} random "
        f"orders for {lower} of {len(areas)} genes and slides."
    )
    base = (label.protocol, label.panel, label.model, MEAN, "tried")
    row = ScoreRow(*base, f"{name} deletion", left, null_mean=random, null_sd=spread, n=tiles)
    return MapScores([row], [line])


def _stability_score(label: ScoreLabel, name: str, found: list[MapStability], *, seeds: str, tiles: int) -> MapScores:
    mean, least = float(np.mean([one.mean for one in found])), min(one.least for one in found)
    line = (
        f"`{label.model}` {name}: rank correlation between the maps of seeds {seeds} is {mean:.3f} (chance 0), lowest "
        f"of {sum(one.pairs for one in found)} pairs {least:.3f}."
    )
    base = (label.protocol, label.panel, label.model, MEAN, "tried")
    return MapScores([ScoreRow(*base, f"{name} stability", mean, null_mean=0.0, n=tiles)], [line])
