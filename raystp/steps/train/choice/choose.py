"""The choice: from scores of candidates on held-out folds to one candidate and its epoch, and why. No Ray, no files.

A candidate's score at an epoch is the mean PCC over the folds. Compared are epochs that every fold has reached. An
epoch whose mean squared error is above that of the training means is taken only where no epoch's is below. The
candidate with the best epoch wins. The first candidate is preferred: another one wins only by more than `MARGIN`, since
smaller differences also appear between two seeds of one training. Of equal epochs the earliest is chosen, of equal
candidates the first.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raystp.errors import ModelError

MARGIN = 0.002
"""By how much a mean PCC must exceed that of the first candidate; a choice of ours."""


@dataclass(frozen=True)
class FoldScore:
    """Score of a candidate on one fold after one epoch; a method that is fitted at once has epoch 0."""

    candidate: int
    """Its position among the candidates."""
    fold: str
    epoch: int
    pcc: float | None
    """Mean over genes; None where no gene has one."""
    mse: float | None = None
    gene_mean_mse: float | None = None
    """Error of the training means on the same values; None where it is unknown."""


@dataclass(frozen=True)
class EpochMean:
    """Mean over the folds of one candidate after one epoch."""

    epoch: int
    pcc: float
    """NaN where a fold has none."""
    mse: float
    gene_mean_mse: float
    folds: Mapping[str, float]
    """Fold -> PCC."""

    @property
    def is_above_gene_mean(self) -> bool:
        """Whether the error is above that of the training means; False where either is unknown."""
        return self.mse > self.gene_mean_mse


@dataclass(frozen=True)
class Choice:
    """The chosen candidate, and every candidate at its best epoch."""

    candidate: int
    best: Mapping[int, EpochMean]
    """Candidate -> its best epoch, best candidate first."""
    epochs: int
    """Number of compared epochs of the chosen one."""
    kept: bool
    """Whether the first candidate was preferred to a better one within `MARGIN`."""

    @property
    def chosen(self) -> EpochMean:
        """The chosen candidate at its chosen epoch."""
        return self.best[self.candidate]


def choose(scores: Sequence[FoldScore]) -> Choice:
    """Choose a candidate and its epoch; raises ModelError where no candidate has a score on every fold."""
    curves = {candidate: mean_curve(scores, candidate) for candidate in dict.fromkeys(one.candidate for one in scores)}
    best = {candidate: found for candidate, curve in curves.items() if (found := best_epoch(curve)) is not None}
    if not best:
        msg = (
            f"fit.select=cv has no score to choose by: of {len(curves)} candidates none has a PCC on every fold; a "
            "held-out section must measure a gene at 2 or more spots"
        )
        raise ModelError(msg)
    ranked = sorted(best, key=lambda one: (*_badness(best[one]), one))
    first, chosen = min(best), ranked[0]
    kept = first != chosen and _is_level(best[first], best[chosen])
    chosen = first if kept else chosen
    return Choice(chosen, {one: best[one] for one in ranked}, len(curves[chosen]), kept)


def mean_curve(scores: Sequence[FoldScore], candidate: int) -> list[EpochMean]:
    """Return the means over the folds of the epochs that a candidate has on every fold, in order."""
    folds = dict.fromkeys(one.fold for one in scores)
    of = {(one.fold, one.epoch): one for one in scores if one.candidate == candidate}
    epochs = sorted({epoch for _, epoch in of if all((fold, epoch) in of for fold in folds)})
    curve = []
    for epoch in epochs:
        own = [of[fold, epoch] for fold in folds]
        pcc, mse, mean = (_mean(values) for values in zip(*((o.pcc, o.mse, o.gene_mean_mse) for o in own), strict=True))
        by_fold = {one.fold: math.nan if one.pcc is None else one.pcc for one in own}
        curve.append(EpochMean(epoch, pcc, mse, mean, by_fold))
    return curve


def best_epoch(curve: Sequence[EpochMean]) -> EpochMean | None:
    """Return the best epoch of a mean curve, the earliest of equal ones; None where no epoch has a PCC."""
    scored = [one for one in curve if math.isfinite(one.pcc)]
    return min(scored, key=lambda one: (*_badness(one), one.epoch)) if scored else None


def _badness(one: EpochMean) -> tuple[bool, float]:
    """Return what is compared, lowest first: PCC, or the error where it is above that of the training means.

    Such an error counts as a multiple of theirs, since bags of other sizes have labels of another spread.
    """
    return one.is_above_gene_mean, one.mse / one.gene_mean_mse if one.is_above_gene_mean else -one.pcc


def _is_level(first: EpochMean, other: EpochMean) -> bool:
    return not first.is_above_gene_mean and other.pcc - first.pcc <= MARGIN


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else math.nan
