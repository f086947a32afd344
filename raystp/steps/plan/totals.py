"""Totals of a cohort from a sample of it, with 95 % intervals.

A stratified estimate: the total of each kind of slide is its number times the mean of its sample, and the variances of
the kinds are added (Cochran, Sampling Techniques, chapter 5). A kind that was sampled whole has no variance.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raystp.slides.table import SlideRow
from raystp.steps.plan.sample import SlideCost, kind_of

Z95 = 1.96
VECTOR_SHARE = 0.85
"""Bytes of stored vectors, of those of their numbers: .82 to .86 for encoders and random numbers."""


@dataclass(frozen=True)
class Total:
    """A sum over all slides, and half the width of its 95 % interval."""

    value: float
    half: float = 0.0

    def scaled(self, factor: float) -> "Total":
        """Return the total in another unit."""
        return Total(self.value * factor, self.half * factor)

    def plus(self, other: "Total") -> "Total":
        """Return the sum of two totals of the same slides, whose errors add."""
        return Total(self.value + other.value, self.half + other.half)

    @property
    def values(self) -> dict[str, float]:
        """The total as plain JSON values."""
        return {"value": self.value, "half_width": self.half}


def total(sizes: Mapping[str, int], sample: Sequence[SlideCost], of: Callable[[SlideCost], float]) -> Total:
    """Return the sum of a quantity over slides, of which `sizes` has the number of each kind.

    Slides that cannot be read count with what they take, nothing.
    """
    groups: dict[str, list[float]] = defaultdict(list)
    for cost in sample:
        groups[kind_of(cost.row)].append(of(cost))
    value = variance = 0.0
    for kind, size in sizes.items():
        found = np.asarray(groups.get(kind, ()), np.float64)
        if not len(found):
            continue
        value += size * float(found.mean())
        if 1 < len(found) < size:
            variance += size**2 * (1 - len(found) / size) * float(found.var(ddof=1)) / len(found)
    return Total(value, Z95 * math.sqrt(variance))


def total_of(rows: Sequence[SlideRow], sample: Sequence[SlideCost], of: Callable[[SlideCost], float]) -> Total:
    """Return the sum of a quantity over some slides: as found where a slide is in the sample, else its kind's mean.

    A kind without a slide in the sample counts nothing.
    """
    known = {cost.row.slide: cost for cost in sample}
    value = sum(of(known[row.slide]) for row in rows if row.slide in known)
    groups: dict[str, list[float]] = defaultdict(list)
    for cost in sample:
        groups[kind_of(cost.row)].append(of(cost))
    variance = 0.0
    for kind, count in Counter(kind_of(row) for row in rows if row.slide not in known).items():
        found = np.asarray(groups.get(kind, ()), np.float64)
        if len(found):
            value += count * float(found.mean())
        if len(found) > 1:
            variance += float(found.var(ddof=1)) * (count**2 / len(found) + count)
    return Total(float(value), Z95 * math.sqrt(variance))
