"""Find sections that are one tissue under two names, by their counts.

Two sections of one tissue on both sides of a split make every score too good. Published collections have such pairs:
one section in two studies, under two patients. They are found by the number of spots, which must be equal, and the
correlation of their pseudo-bulks over the genes that both measured. In HER2ST that of neighbouring sections of one
tumour is .976 to .982, and that of two patients .855.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from raystp.expression.leaks.pseudo_bulk import PseudoBulk

MIN_CORRELATION = 0.999
"""Two pseudo-bulks above this correlation are taken for one tissue."""
MIN_SHARED = 100
"""With fewer shared genes a high correlation is chance: only exact copies are found."""
BLOCK = 512
"""Sections that are compared at a time: it bounds memory, and a block of correlations is a few matrix products."""


@dataclass(frozen=True)
class SameTissue:
    """Two sections that look like one tissue."""

    first: str
    second: str
    spots: int
    genes: int
    """That both measured."""
    correlation: float
    """Of their log1p counts per million; 1 for an exact copy."""
    is_copy: bool
    """Whether all sums of counts are equal."""


def find_same_tissue(sections: Mapping[str, PseudoBulk]) -> list[SameTissue]:
    """Return all pairs of sections that look like one tissue, in the order of the sections' names.

    The cost is that of correlations among sections with an equal number of spots: 5,000 sections take seconds.
    """
    groups: dict[int, list[str]] = defaultdict(list)
    for name in sorted(sections):
        groups[sections[name].spots].append(name)
    found = [pair for names in groups.values() for pair in _within(names, [sections[name] for name in names])]
    return sorted(found, key=lambda pair: (pair.first, pair.second))


def _within(names: Sequence[str], bulks: Sequence[PseudoBulk]) -> Iterator[SameTissue]:
    """Yield the pairs within a group of sections with an equal number of spots."""
    blocks = range(0, len(names), BLOCK)
    for start, other in itertools.combinations_with_replacement(blocks, 2):
        a, b = bulks[start : start + BLOCK], bulks[other : other + BLOCK]
        if start == other and len(a) == 1:
            continue
        correlation, shared = _correlations(a, b)
        for row, column in np.argwhere((correlation > MIN_CORRELATION) & (shared >= MIN_SHARED) | _copies(a, b)):
            if start + row >= other + column:
                continue
            is_copy = a[row].counts == b[column].counts
            yield SameTissue(
                names[start + row],
                names[other + column],
                spots=a[row].spots,
                genes=int(shared[row, column]),
                correlation=1.0 if is_copy else float(correlation[row, column]),
                is_copy=is_copy,
            )


def _copies(a: Sequence[PseudoBulk], b: Sequence[PseudoBulk]) -> Bool[np.ndarray, "section other"]:
    equal: Bool[np.ndarray, "section other"] = np.equal.outer(
        np.asarray([one.counts for one in a]), np.asarray([one.counts for one in b])
    )
    return equal


def _correlations(
    a: Sequence[PseudoBulk], b: Sequence[PseudoBulk]
) -> tuple[Float32[np.ndarray, "section other"], Float32[np.ndarray, "section other"]]:
    """Return the correlation of each pair over its shared genes, and their number; NaN without variance."""
    if len({one.genes for one in (*a, *b)}) == 1:
        genes = len(a[0].levels)
        correlation = _standardised(a) @ _standardised(b).T / max(genes, 1)
        return correlation, np.full_like(correlation, genes)
    keys = np.unique(np.concatenate([one.keys for one in (*a, *b)]))
    (x, in_x), (y, in_y) = _on(keys, a), _on(keys, b)
    shared = in_x @ in_y.T
    size = np.maximum(shared, 1)
    mean_x, mean_y = x @ in_y.T / size, in_x @ y.T / size
    variance_x = np.square(x) @ in_y.T / size - np.square(mean_x)
    variance_y = in_x @ np.square(y).T / size - np.square(mean_y)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = (x @ y.T / size - mean_x * mean_y) / np.sqrt(variance_x * variance_y)
    return correlation.astype(np.float32), shared.astype(np.float32)


def _standardised(bulks: Sequence[PseudoBulk]) -> Float32[np.ndarray, "section gene"]:
    levels = np.stack([one.levels for one in bulks]).astype(np.float32)
    levels -= levels.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        levels /= np.sqrt(np.square(levels).mean(axis=1, keepdims=True))
    return levels


def _on(keys: np.ndarray, bulks: Sequence[PseudoBulk]) -> tuple[np.ndarray, np.ndarray]:
    """Return the levels on these genes, 0 where a section has not measured one, and 1 where it has; float64.

    The levels of each section are relative to its mean, so that the variance below is no difference of large numbers.
    """
    levels = np.zeros((len(bulks), len(keys)))
    measured = np.zeros((len(bulks), len(keys)))
    for row, bulk in enumerate(bulks):
        columns = np.searchsorted(keys, bulk.keys)
        levels[row, columns] = bulk.levels - bulk.levels.mean(dtype=np.float64)
        measured[row, columns] = 1.0
    return levels, measured
