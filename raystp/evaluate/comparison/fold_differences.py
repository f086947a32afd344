"""Paired differences over a cross-validation: each part is a section of a fold, or the cases of a fold.

The score of a model is the mean over all parts that both models have. Patients are resampled if there are three or
more, else sections; of cases, folds are. Training sides of folds overlap, so trainings are not independent: an interval
is about other test patients, for trainings like these.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from raystp.evaluate.comparison.differences import (
    ComparedUnits,
    PairedDifference,
    ScoredPair,
    pair_of,
    paired_differences,
)
from raystp.evaluate.metrics.intervals import DRAWS, draw_sections
from raystp.evaluate.metrics.score import ModelScores
from raystp.evaluate.metrics.set_scores import SetScores, mean_set_scores
from raystp.evaluate.metrics.sums import METRICS

PartScores = Mapping[str, Mapping[tuple[str, str], float]]
"""Part -> metric and gene set -> score, of one model."""


@dataclass(frozen=True)
class FoldParts:
    """What a cross-validation tested."""

    unit_of: Mapping[str, str]
    """Part -> its patient; of cases, its fold."""
    unit: str | None = None
    """What the units are called; None for patients, or sections where there are few patients."""


def fold_differences(
    scores: Mapping[str, PartScores],
    pairs: Mapping[tuple[str, str], bool],
    parts: FoldParts,
    *,
    where: tuple[str, str, str],
    seed: int = 0,
) -> list[PairedDifference]:
    """Return the differences of pairs of models over all parts; `where` is protocol, panel and the row's section.

    `pairs` is model and other -> whether the other is a control.
    """
    columns = list(dict.fromkeys(key for one in scores.values() for found in one.values() for key in found))
    sets = list(dict.fromkeys(genes for metric, genes in columns if metric == "PCC"))
    found = [
        replace(made, control=control)
        for pair, control in pairs.items()
        if (made := _pair(scores, pair, parts, sets, seed=seed)) is not None
    ]
    return paired_differences(
        found,
        {name: np.arange(1) for name in sets},
        where=where[:2],
        section=where[2],
        rng=np.random.default_rng(seed),
    )


def _pair(
    scores: Mapping[str, PartScores], pair: tuple[str, str], parts: FoldParts, sets: Sequence[str], *, seed: int
) -> ScoredPair | None:
    """Return two models' scores on the parts that both have; None where there is none."""
    common = [part for part in parts.unit_of if all(part in scores.get(model, {}) for model in pair)]
    if not common:
        return None
    values = [np.stack([_values(scores[model][part], sets) for part in common]) for model in pair]
    missing = np.isnan(values[0]) | np.isnan(values[1])
    units = tuple(parts.unit_of[part] for part in common)
    ours, theirs = (_scores(np.where(missing, np.nan, one), common, units, seed=seed) for one in values)
    made = pair_of(*pair, ours, theirs)
    if not made.units.of_section:  # fewer than three patients and sections
        return replace(made, units=ComparedUnits(parts.unit or "sections", len(common)))
    if parts.unit is None:
        return made
    return replace(made, units=replace(made.units, test=f"sign flips of {parts.unit}"))


def _values(found: Mapping[tuple[str, str], float], sets: Sequence[str]) -> Float64[np.ndarray, "metric sets"]:
    return np.array([[found.get((metric, name), np.nan) for name in sets] for metric in METRICS])


def _scores(
    values: Float64[np.ndarray, "part metric sets"], names: Sequence[str], units: tuple[str, ...], *, seed: int
) -> ModelScores:
    none = np.zeros(values.shape[1:], np.int64)
    each = [SetScores(one, none, None, 0) for one in values]
    mean = mean_set_scores(each, draw_sections(units, DRAWS, np.random.default_rng(seed)))
    return ModelScores(dict(zip(names, each, strict=True)), mean, mean, units, 0)
