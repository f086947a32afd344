"""Bootstrap 95 % intervals: which units are resampled.

The resampled unit decides what the interval is about. With three or more test patients, patients are resampled: the
interval is for another patient. With three or more test sections, sections are. With fewer, square blocks of spots
within each section are: neighbouring spots are correlated, so resampling single spots would give an interval that is
far too narrow. A block interval is about THESE sections only, and is labelled "within section".
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64, Int64

DRAWS = 1000
LEVELS = (0.025, 0.975)

BLOCKS = 20
"""Square blocks per section: a Visium section of 3000 spots gives blocks of 12 x 12, a legacy ST one of 300 4 x 4."""

SPOTS_PER_BLOCK = 4
"""A small section gets fewer blocks, so that a block holds more than one spot."""

FEWEST_BLOCKS = 5
"""With fewer blocks the draws are too similar: no interval is given."""

FEWEST_UNITS = 3
"""Fewest patients, or sections, that are resampled as whole units."""


def interval_kind(patients: Sequence[str]) -> str:
    """Return what the interval of a mean or pooled score is about, given each test section's patient.

    `over patients`, `over sections` or `within section`.
    """
    if len(set(patients)) >= FEWEST_UNITS:
        return "over patients"
    return "over sections" if len(patients) >= FEWEST_UNITS else "within section"


def blocks(xy: Float[np.ndarray, "spot 2"], n: int = BLOCKS) -> Int64[np.ndarray, "spot"]:
    """Return each spot's block, 0..b-1: squares of one side length, chosen so that b is close to `n`.

    Only blocks that hold spots count. Squares are axis-aligned and start at the spots' top-left corner. `n` is lowered
    first if a block would hold fewer than `SPOTS_PER_BLOCK` spots on average. Among side lengths that are equally
    close, the one with the most even blocks is taken.
    """
    count = max(1, min(n, len(xy) // SPOTS_PER_BLOCK))
    start = xy.min(axis=0)
    extent = float((xy.max(axis=0) - start).max())
    if count == 1 or extent == 0.0:
        return np.zeros(len(xy), dtype=np.int64)
    # From one block to a row of 2 x count blocks along the longer side.
    sides = extent * 1.001 / np.linspace(1.0, 2.0 * count, 16 * count)
    labels = [_number(np.floor((xy - start) / side).astype(np.int64)) for side in sides]
    sizes = [np.bincount(label) for label in labels]
    best = min(range(len(sides)), key=lambda side: (abs(len(sizes[side]) - count), int(np.square(sizes[side]).sum())))
    return labels[best]


def resample(strata: Sequence[int], draws: int, rng: np.random.Generator) -> Float64[np.ndarray, "draw block"]:
    """Return how often each block is drawn: within each stratum, as many blocks as it has, with replacement."""
    counts = [rng.multinomial(size, np.full(size, 1.0 / size), size=draws) for size in strata]
    return np.concatenate(counts, axis=1).astype(np.float64)


def draw_sections(
    patients: Sequence[str], draws: int, rng: np.random.Generator
) -> Float64[np.ndarray, "draw section"] | None:
    """Return how often each section is drawn if patients or sections are resampled; None if blocks of spots are.

    All sections of a patient are drawn together.
    """
    kind = interval_kind(patients)
    if kind == "within section":
        return None
    if kind == "over sections":
        return resample([len(patients)], draws, rng)
    units, unit = np.unique(np.asarray(patients), return_inverse=True)
    return resample([len(units)], draws, rng)[:, unit]


def interval(values: Float64[np.ndarray, "draw"]) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % quantiles of the draws (percentile bootstrap)."""
    low, high = np.quantile(values, LEVELS).tolist()
    return low, high


def _number(cells: Int64[np.ndarray, "spot 2"]) -> Int64[np.ndarray, "spot"]:
    """Number the cells that hold spots, 0..b-1, row by row."""
    _, label = np.unique(cells[:, 1] * (cells[:, 0].max() + 1) + cells[:, 0], return_inverse=True)
    return label.astype(np.int64)
