"""Which models are compared, and their scores on what all of a pair have: the same spots, sections and values.

An entry of a comparison is a model, or models that differ only in the seed of their training; the score of these is
the mean over seeds, draw by draw.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int64

from raystp.evaluate.comparison.differences import ScoredPair, pair_of
from raystp.evaluate.metrics.genes import GeneSets
from raystp.evaluate.metrics.intervals import DRAWS
from raystp.evaluate.metrics.score import ModelScores, SectionOutcome, section_scores
from raystp.evaluate.metrics.set_scores import SetScores, mean_of_existing

Outcomes = Mapping[str, SectionOutcome]
"""Section -> predicted beside measured expression."""


@dataclass(frozen=True)
class ComparedModel:
    """An entry of a comparison."""

    name: str
    outcomes: Sequence[Outcomes]
    """One model, or one for each seed."""
    scores: Sequence[ModelScores]
    """The score of each on all that it predicts."""


@dataclass(frozen=True)
class PairScorer:
    """Score pairs of models on the draws of one seed."""

    sets: GeneSets
    seed: int = 0
    draws: int = DRAWS

    def pair(self, ours: ComparedModel, theirs: ComparedModel) -> ScoredPair | None:
        """Return both models' scores on what both have; None where they have no section in common."""
        given = [*ours.outcomes, *theirs.outcomes]
        common = common_outcomes(given)
        if not common[0]:
            return None
        if all(one is other for one, other in zip(common, given, strict=True)):
            scores = [*ours.scores, *theirs.scores]
        else:
            scores = [self.score(one) for one in common]
        own = len(ours.outcomes)
        return pair_of(ours.name, theirs.name, mean_of_seeds(scores[:own]), mean_of_seeds(scores[own:]))

    def score(self, outcomes: Outcomes) -> ModelScores:
        """Score one model; every call draws the same blocks, sections or patients."""
        return section_scores(outcomes, self.sets, rng=np.random.default_rng(self.seed), draws=self.draws)


def pairs_to_compare(models: Sequence[str], controls: Sequence[str]) -> list[tuple[str, str]]:
    """Return each pair of models, and the first model with each control.

    Controls are not compared with each other: they predict nothing for a new slide.
    """
    return [*combinations(models, 2), *((models[0], control) for control in controls)]


def mean_of_seeds(scores: Sequence[ModelScores]) -> ModelScores:
    """Return the mean over seeds of every value and of every draw; the scores are of the same spots and draws."""
    if len(scores) == 1:
        return scores[0]
    sections = {name: _mean([one.sections[name] for one in scores]) for name in scores[0].sections}
    return replace(
        scores[0],
        sections=sections,
        mean=_mean([one.mean for one in scores]),
        pooled=_mean([one.pooled for one in scores]),
    )


def common_outcomes(outcomes: Sequence[Outcomes]) -> list[Outcomes]:
    """Return the models' outcomes on the sections, spots and values that all have.

    Spots are matched by their centres. Where all models have the same, the given outcomes are returned themselves.
    """
    names = [name for name in outcomes[0] if all(name in one for one in outcomes)]
    found: list[dict[str, SectionOutcome]] = [{} for _ in outcomes]
    changed = any(len(one) != len(names) for one in outcomes)
    for name in names:
        given = [one[name] for one in outcomes]
        common = _common(given)
        changed |= any(one is not other for one, other in zip(common, given, strict=True))
        if len(common[0].xy):
            for into, one in zip(found, common, strict=True):
                into[name] = one
    return list(found) if changed else list(outcomes)


def _common(outcomes: list[SectionOutcome]) -> list[SectionOutcome]:
    first = outcomes[0]
    if not all(np.array_equal(one.xy, first.xy) for one in outcomes):
        outcomes = [_select(one, rows) for one, rows in zip(outcomes, _common_rows(outcomes), strict=True)]
    missing = [np.isnan(one.measured) for one in outcomes]
    if all(np.array_equal(one, missing[0]) for one in missing):
        return outcomes
    any_missing = np.logical_or.reduce(missing)
    return [replace(one, measured=np.where(any_missing, np.nan, one.measured)) for one in outcomes]


def _select(one: SectionOutcome, rows: Int64[np.ndarray, "_"]) -> SectionOutcome:
    return replace(one, predicted=one.predicted[rows], measured=one.measured[rows], xy=one.xy[rows])


def _common_rows(outcomes: Sequence[SectionOutcome]) -> list[Int64[np.ndarray, "_"]]:
    """Return, for each model, the rows of the spots that all have, in the order of the first."""
    row_of = [{spot: row for row, spot in enumerate(_centres(one.xy))} for one in outcomes]
    spots = [spot for spot in row_of[0] if all(spot in rows for rows in row_of)]
    return [np.array([rows[spot] for spot in spots], np.int64) for rows in row_of]


def _centres(xy: Float[np.ndarray, "spot 2"]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in xy.tolist()]


def _mean(scores: Sequence[SetScores]) -> SetScores:
    """Return the mean over seeds; a value that a seed does not have is left out."""
    draws = [one.draws for one in scores if one.draws is not None]
    return replace(
        scores[0],
        values=mean_of_existing(np.stack([one.values for one in scores])),
        constant=np.sum([one.constant for one in scores], axis=0),
        draws=mean_of_existing(np.stack(draws)) if len(draws) == len(scores) else None,
    )
