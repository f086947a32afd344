"""Two-sided p of a paired difference, and Holm's correction for several comparisons.

Two tests, by what is resampled:

- Sign flips, where whole patients or sections are the units and the score is a mean over sections. Under the null
  hypothesis a unit's difference is as likely to be negative as positive. p is the share of all 2^n assignments of signs
  to the n units whose summed difference is at least as far from 0 as the observed one; the observed one is among them.
  Above `EXACT_UNITS` units, `RANDOM_FLIPS` random assignments are drawn and p is (1 + count) / (1 + draws).
- Bootstrap, where blocks of spots or cases are resampled, whose scores do not add up. p is twice the share of draws on
  the smaller side of 0: 2 (1 + min(count <= 0, count >= 0)) / (1 + draws), at most 1. It is not below 2 / 2^n for n
  resampled units, the smallest p of n sign flips: more draws do not make few units certain.

With fewer than `FEWEST_UNITS` units there is no p: three units cannot give less than 0.25, two not less than 0.5.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from raystp.evaluate.metrics.intervals import FEWEST_UNITS

EXACT_UNITS = 14
"""Up to so many units all 2^n assignments of signs are counted."""

RANDOM_FLIPS = 20_000

ROUNDING = 1e-9
"""Sums within this share of the observed one count as equal to it."""


def smallest_p(units: int) -> float:
    """Return the smallest two-sided p that so many units can give: 2 / 2^n."""
    return float(2.0 ** (1 - units))


def sign_flip_p(differences: Float[np.ndarray, "unit"], rng: np.random.Generator) -> float | None:
    """Return the p of the summed difference by sign flips; None for fewer than `FEWEST_UNITS` units.

    `rng` is used above `EXACT_UNITS` units only. The p of -differences is the same.
    """
    count = len(differences)
    if count < FEWEST_UNITS:
        return None
    exact = count <= EXACT_UNITS
    if exact:
        bits = np.arange(2**count)[:, None] >> np.arange(count) & 1
    else:
        bits = rng.integers(0, 2, size=(RANDOM_FLIPS, count))
    values = differences.astype(np.float64)
    sums = np.abs((1.0 - 2.0 * bits) @ values)
    far = int((sums >= abs(float(values.sum())) - ROUNDING * float(np.abs(values).sum())).sum())
    return far / len(sums) if exact else (1 + far) / (1 + len(sums))


def bootstrap_p(draws: Float[np.ndarray, "draw"], units: int) -> float | None:
    """Return the p of a difference from its bootstrap draws; None for fewer than `FEWEST_UNITS` units, or no draw.

    Draws without a score (NaN) are left out.
    """
    existing = draws[~np.isnan(draws)]
    if units < FEWEST_UNITS or not len(existing):
        return None
    side = min(int((existing <= 0).sum()), int((existing >= 0).sum()))
    return min(1.0, max(2 * (1 + side) / (1 + len(existing)), smallest_p(units)))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return each p corrected by Holm's step-down method for all of them, in the given order.

    The k-th smallest of m is multiplied by m - k + 1; none is below a smaller one's, or above 1. A comparison without a
    p is not counted and stays None. S. Holm, Scand J Statist 6 (1979) 65-70.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        corrected[place] = largest
    return corrected
