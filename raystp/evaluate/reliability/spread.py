"""How often the truth is within 1 and 2 spreads of the prediction.

A prediction from a reference index comes with a spread: the weighted standard deviation among the neighbours of a tile,
per gene. If measurements were normal around the prediction with that deviation, 68.3 % of them would be within 1
spread, and 95.4 % within 2. Fewer: the spread is too narrow, and the prediction more certain than it should be. More:
it is too wide. Expression is not normal (many values are 0), so shares in between can differ with the right deviation;
the whole curve of shares is given as well.

A value with spread 0 has the truth within any number of spreads if it is equal to the truth, and else within none.
Values are weighted equally: a gene with many spots counts more than one with few.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int64

NOMINAL = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Shares of a normal spread at which the curve of observed shares is given."""


def within_normal(spreads: float) -> float:
    """Return the share of a normal distribution within so many standard deviations of its mean."""
    return 2.0 * NormalDist().cdf(spreads) - 1.0


MULTIPLES = tuple(NormalDist().inv_cdf((1.0 + share) / 2.0) for share in NOMINAL)
"""Spreads within which a normal distribution has these shares."""

ONE_SPREAD = within_normal(1.0)

EDGES = np.unique(np.concatenate([np.arange(0.0, 20.0, 0.01), np.array([1.0, 2.0, *MULTIPLES])]))
"""Errors are counted by size, in spreads, between these edges."""


@dataclass(frozen=True)
class SpreadCounts:
    """Counts of the errors of many values by size: |measured - predicted| / spread. Counts of sections add up."""

    counts: Int64[np.ndarray, "edges"]
    """Errors above the edge before and up to this edge; the first are errors of 0."""
    beyond: int
    """Errors above the last edge, or above 0 with a spread of 0."""
    zero: int
    """Values with spread 0."""

    def __add__(self, other: "SpreadCounts") -> "SpreadCounts":
        return SpreadCounts(self.counts + other.counts, self.beyond + other.beyond, self.zero + other.zero)

    @property
    def values(self) -> int:
        """Number of values: measured and predicted genes of all spots."""
        return int(self.counts.sum()) + self.beyond

    def within(self, spreads: float) -> float:
        """Return the share of the values within so many spreads, exact at an edge; NaN without a value."""
        if not self.values:
            return float(np.nan)
        return float(self.counts[: np.searchsorted(EDGES, spreads, side="right")].sum()) / self.values

    def factor(self) -> float:
        """Return what the spread must be multiplied by for 68.3 % of the values to be within it, to 0.01.

        NaN where less than that are within the last edge.
        """
        shares = np.cumsum(self.counts) / max(self.values, 1)
        enough = np.flatnonzero(shares >= ONE_SPREAD)
        return float(EDGES[enough[0]]) if len(enough) else float(np.nan)


@dataclass(frozen=True)
class SpreadCoverage:
    """Calibration of a model's spread on one section, in the columns of `SPREAD_COVERAGE`."""

    model: str
    section: str
    """A section's name, or `pooled` over all."""
    values: int
    within_1: float
    """Share of the values within 1 spread; a normal spread has 0.683."""
    within_2: float
    """Share of the values within 2 spreads; a normal spread has 0.954."""
    factor: float | None
    """The spread times this holds 68.3 % of the values."""
    zero: int
    """Values with spread 0."""
    shares: tuple[float, ...]
    """Observed shares where a normal spread has `NOMINAL`."""


def spread_counts(
    predicted: Float[np.ndarray, "spot gene"],
    measured: Float[np.ndarray, "spot gene"],
    spread: Float[np.ndarray, "spot gene"],
) -> SpreadCounts:
    """Count the errors of a section in spreads; a value that is not measured or not predicted (NaN) is left out."""
    known = ~(np.isnan(measured) | np.isnan(spread) | np.isnan(predicted))
    error = np.abs(measured[known].astype(np.float64) - predicted[known])
    width = spread[known].astype(np.float64)
    size = np.where(error == 0, 0.0, error / np.where(width > 0, width, np.nan))
    size = np.where(np.isnan(size), np.inf, size)
    bins = np.bincount(np.searchsorted(EDGES, size, side="left"), minlength=len(EDGES) + 1)
    return SpreadCounts(bins[:-1].astype(np.int64), int(bins[-1]), int((width == 0).sum()))


def coverage(model: str, sections: Iterable[tuple[str, SpreadCounts]], pooled: str) -> list[SpreadCoverage]:
    """Return the calibration of each section, and pooled over their values; nothing without a section."""
    found = [(name, counts) for name, counts in sections if counts.values]
    if not found:
        return []
    total = found[0][1]
    for _, counts in found[1:]:
        total += counts
    return [_coverage(model, name, counts) for name, counts in [*found, (pooled, total)]]


def _coverage(model: str, section: str, counts: SpreadCounts) -> SpreadCoverage:
    factor = counts.factor()
    return SpreadCoverage(
        model,
        section,
        counts.values,
        within_1=counts.within(1.0),
        within_2=counts.within(2.0),
        factor=None if np.isnan(factor) else factor,
        zero=counts.zero,
        shares=tuple(counts.within(one) for one in MULTIPLES),
    )
