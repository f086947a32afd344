"""Paired differences between models: the same spots, the same genes, the same bootstrap draws.

The difference of a metric is that of one model minus that of the other. Its interval is the 2.5 % and 97.5 % quantile
of the difference over the bootstrap draws, in which both models are scored on the same resampled units: patients if
there are three or more, else sections if there are three or more, else blocks of spots within the sections
(`metrics.intervals`). What both models do badly or well on a unit cancels, so the interval is narrower than the two
models' own suggest. `p_values` has the tests.

A value that one of the two models does not predict is left out for both, and so is a spot that only one has.

Holm's correction is over the comparisons of one metric and one gene set: other metrics and sets of the same comparison
are views of one question, not further questions. Comparisons with controls are corrected apart from those of models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from raystp.evaluate.comparison.p_values import bootstrap_p, holm, sign_flip_p
from raystp.evaluate.metrics.genes import GeneSets
from raystp.evaluate.metrics.intervals import FEWEST_UNITS, interval, interval_kind
from raystp.evaluate.metrics.score import MEAN, ModelScores
from raystp.evaluate.metrics.set_scores import SetScores
from raystp.evaluate.metrics.sums import METRICS

ERROR = "MSE"
"""Compared over all genes, beside the PCC of every gene set."""


@dataclass(frozen=True)
class PairedDifference:
    """One metric of a model minus that of another, in the columns of `COMPARISON`."""

    protocol: str
    panel: str
    model: str
    against: str
    section: str
    """`mean` over sections, or `cases`."""
    genes: str
    """Name of a gene set."""
    metric: str
    difference: float
    low: float | None
    """Lower end of the paired bootstrap 95 % interval."""
    high: float | None
    p: float | None
    """Two-sided; None with too few units."""
    p_holm: float | None
    """Corrected for all comparisons of this metric and gene set: of models, or with controls."""
    test: str
    """What was resampled: `sign flips of patients`, `bootstrap of blocks within section`, ..."""
    units: int
    """How many of these."""
    control: bool = False
    """Whether the other one is a control."""


@dataclass(frozen=True)
class ComparedUnits:
    """What is resampled when two models are compared."""

    test: str
    count: int
    of_section: tuple[str, ...] = ()
    """The unit of each section, where signs of whole units are flipped; empty for a bootstrap p."""


@dataclass(frozen=True)
class ScoredPair:
    """Two models, scored on the same values and draws."""

    model: str
    against: str
    scores: tuple[SetScores, SetScores]
    units: ComparedUnits
    sections: tuple[Sequence[SetScores], Sequence[SetScores]] = ((), ())
    """The scores of each section, where signs of whole units are flipped."""
    control: bool = False
    """Whether the other one is a control."""


def units_of(scores: ModelScores) -> ComparedUnits:
    """Return what is resampled for the mean over a model's sections."""
    kind = interval_kind(scores.patients)
    if kind == "within section":
        return ComparedUnits("bootstrap of blocks within section", scores.blocks)
    patients = kind == "over patients"
    units = scores.patients if patients else tuple(scores.sections)
    return ComparedUnits(f"sign flips of {'patients' if patients else 'sections'}", len(set(units)), units)


def pair_of(model: str, against: str, ours: ModelScores, theirs: ModelScores) -> ScoredPair:
    """Return two models' scores over sections as a pair; both are scored on the same values and draws."""
    sections = tuple(ours.sections.values()), tuple(theirs.sections.values())
    return ScoredPair(model, against, (ours.mean, theirs.mean), units_of(ours), sections)


def case_pair(names: tuple[str, str], scores: tuple[SetScores, SetScores], patients: Sequence[str]) -> ScoredPair:
    """Return two models' scores over cases as a pair; `patients` has the patient of each case.

    Scores over cases do not add up over cases, so p is that of the bootstrap.
    """
    whole = interval_kind(patients) == "over patients"
    count = len(set(patients)) if whole else len(patients)
    return ScoredPair(*names, scores, ComparedUnits(f"bootstrap of {'patients' if whole else 'cases'}", count))


def paired_differences(
    pairs: Sequence[ScoredPair],
    sets: GeneSets,
    *,
    where: tuple[str, str],
    section: str = MEAN,
    rng: np.random.Generator,
) -> list[PairedDifference]:
    """Return the differences of all pairs, with p corrected by Holm's method within each metric and gene set.

    `where` is protocol and panel. A pair of which one model has no such score has no row.
    """
    rows: list[PairedDifference] = []
    for metric, column, genes in _compared(sets):
        found = [
            one
            for pair in pairs
            if (one := _difference(pair, (metric, genes), column, where=(*where, section), rng=rng)) is not None
        ]
        for family in ([one for one in found if one.control is control] for control in (False, True)):
            corrected = holm([one.p for one in family])
            rows += [replace(one, p_holm=p) for one, p in zip(family, corrected, strict=True)]
    return rows


def primary(rows: Sequence[PairedDifference], model: str, against: str) -> PairedDifference | None:
    """Return the difference in PCC over all genes of two models, in this order; None if it is not among the rows."""
    for one in rows:
        if one.metric != "PCC" or one.genes != "all":
            continue
        if (one.model, one.against) == (model, against):
            return one
        if (one.model, one.against) == (against, model):
            return turned(one)
    return None


def turned(one: PairedDifference) -> PairedDifference:
    """Return the same comparison from the other model's side."""
    low, high = (None if end is None else -end for end in (one.high, one.low))
    return replace(one, model=one.against, against=one.model, difference=-one.difference, low=low, high=high)


def _compared(sets: GeneSets) -> list[tuple[str, int, str]]:
    """Return metric, column of the gene set, and its name, of all that is compared."""
    names = list(sets)
    errors = [(ERROR, names.index("all"), "all")] if "all" in sets else []
    return [("PCC", column, name) for column, name in enumerate(names)] + errors


def _difference(
    pair: ScoredPair,
    measure: tuple[str, str],
    column: int,
    *,
    where: tuple[str, str, str],
    rng: np.random.Generator,
) -> PairedDifference | None:
    metric, genes = measure
    at = (METRICS.index(metric), column)
    ours, theirs = pair.scores
    difference = float(ours.values[at] - theirs.values[at])
    if not np.isfinite(difference):
        return None
    draws = _drawn(pair, at)
    existing = draws[~np.isnan(draws)]
    low, high = interval(existing) if len(existing) else (None, None)
    count, p = pair.units.count, bootstrap_p(draws, pair.units.count)
    if pair.units.of_section:
        by_unit = _by_unit(pair, at)
        count, p = len(by_unit), sign_flip_p(np.array(list(by_unit.values())), rng)
    protocol, panel, section = where
    names = (protocol, panel, pair.model, pair.against, section, genes, metric)
    enough = count >= FEWEST_UNITS
    ends = (low, high) if enough else (None, None)
    return PairedDifference(
        *names, difference, *ends, p=p, p_holm=None, test=pair.units.test, units=count, control=pair.control
    )


def _drawn(pair: ScoredPair, at: tuple[int, int]) -> Float64[np.ndarray, " draw"]:
    ours, theirs = (one.draws for one in pair.scores)
    if ours is None or theirs is None:
        return np.zeros(0)
    drawn: Float64[np.ndarray, " draw"] = ours[:, at[0], at[1]] - theirs[:, at[0], at[1]]
    return drawn


def _by_unit(pair: ScoredPair, at: tuple[int, int]) -> Mapping[str, float]:
    """Return unit -> summed difference over its sections, of the sections in which both models have the score."""
    sums: dict[str, float] = {}
    for unit, ours, theirs in zip(pair.units.of_section, *pair.sections, strict=True):
        difference = float(ours.values[at] - theirs.values[at])
        if np.isfinite(difference):
            sums[unit] = sums.get(unit, 0.0) + difference
    return sums
