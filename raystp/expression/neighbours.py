"""Which spots, or tiles, lie around each: places in, row numbers of the nearest out, and which of them are there.

The nearest are found by distance, so a square array, a hexagonal one, a grid of tiles and an irregular set are all one
case: no array coordinate is read. At the tissue's edge the k nearest reach further out than elsewhere; `within`, a
length, keeps those out that are no true neighbours. Nobody has neighbours on another slide.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Shaped
from scipy.spatial import cKDTree

from raystp.errors import SectionError

NODES = 9
"""A spot and its 8 neighbours: the 3 x 3 of a square array (NH2ST, arXiv 2506.23827, and TRIPLEX before it)."""

REACH = 1.5
"""In pitches: reaches all 8 neighbours on a square array (the far ones at 1.41) and all 6 on a hexagonal one, whose
next are at 1.73."""

_TIE = 1e-9
"""Distances that differ by this share are equal: a lattice's are, but for their last bits."""

_SPARE = 8
"""Candidates beyond those wanted, so that on any lattice the last place's equals are among them at the first look."""

_CHUNK = 1 << 16
"""Spots looked up at a time: bounds the memory (about 50 MB), never the answer."""


@dataclass(frozen=True)
class SpotNeighbours:
    """The neighbourhoods, a row per spot; the first node is the spot itself, then outwards."""

    rows: Int64[np.ndarray, "spot node"]
    """Row numbers; an absent neighbour's place holds the spot itself, so that every number can be looked up."""
    mask: Bool[np.ndarray, "spot node"]
    """Which places hold a neighbour, or the spot itself in the first place."""

    def repeating_self(self) -> "SpotNeighbours":
        """Return the same with the spot itself as a full member in each absent neighbour's place."""
        return SpotNeighbours(self.rows, np.ones_like(self.mask))


def neighbours(
    xy: Float[np.ndarray, "spot 2"],
    slides: Shaped[np.ndarray, "spot"] | Sequence[str] | None = None,
    *,
    k: int = NODES,
    within: float | Float[np.ndarray, "spot"] | None = None,
) -> SpotNeighbours:
    """Return each spot's `k` nearest of its own slide, itself included and first; of equally near ones the lower rows.

    `slides` labels the spots in any order; without it all are on one. `within` is in the unit of `xy`: the longest
    distance at which a spot is a neighbour (`REACH` pitches), one for all or one per spot; without it the k nearest
    are, however far. A slide with fewer spots than `k` leaves places empty. Takes n log n time. Raises SectionError
    for places that are no numbers, and for a `k`, labels or lengths that do not fit.
    """
    longest = np.broadcast_to(np.asarray(np.inf if within is None else within, dtype=np.float64), (len(xy),))
    _check(xy, slides, k, longest)
    rows = np.repeat(np.arange(len(xy), dtype=np.int64)[:, None], k, axis=1)
    mask = np.zeros((len(xy), k), dtype=np.bool_)
    mask[:, 0] = True
    for members in _each_slide(slides, len(xy)):
        tree = cKDTree(xy[members].astype(np.float64))
        for start in range(0, len(members), _CHUNK):
            centres = np.arange(start, min(start + _CHUNK, len(members)), dtype=np.int64)
            distance, near = _nearest(tree, centres, wanted=k - 1, candidates=k + _SPARE)
            whose = members[centres]
            found = np.isfinite(distance) & (distance <= longest[whose, None] * (1 + _TIE))
            rows[whose, 1:] = np.where(found, members[near], whose[:, None])
            mask[whose, 1:] = found
    return SpotNeighbours(rows, mask)


def tile_centres(squares: Float[np.ndarray, "tile 3"]) -> Float64[np.ndarray, "tile 2"]:
    """Return the centres (x, y) of squares (x, y, side), as tiles are stored: corner and side in level-0 px."""
    return squares[:, :2].astype(np.float64) + squares[:, 2:].astype(np.float64) / 2.0


def smoothed(expression: Float[np.ndarray, "spot gene"], around: SpotNeighbours) -> Float[np.ndarray, "spot gene"]:
    """Return the mean over each neighbourhood, the spot included: a label that was smoothed, never one to score by.

    NH2ST (its published code) and TRIPLEX train, and score, on such means over 3 x 3 spots.
    """
    total = np.zeros(expression.shape, dtype=np.float64)
    for node in range(around.rows.shape[1]):
        total += np.where(around.mask[:, node, None], expression[around.rows[:, node]], 0.0)
    mean: np.ndarray = (total / around.mask.sum(axis=1, keepdims=True)).astype(expression.dtype)
    return mean


def _each_slide(
    slides: Shaped[np.ndarray, "spot"] | Sequence[str] | None, count: int
) -> Iterator[Int64[np.ndarray, "member"]]:
    """Give the rows of each slide, ascending."""
    if slides is None:
        yield np.arange(count, dtype=np.int64)
        return
    number = np.unique(np.asarray(slides), return_inverse=True)[1]
    order = np.argsort(number, kind="stable").astype(np.int64)
    yield from np.split(order, np.flatnonzero(np.diff(number[order])) + 1)


def _nearest(
    tree: cKDTree, centres: Int64[np.ndarray, "centre"], *, wanted: int, candidates: int
) -> tuple[Float64[np.ndarray, "centre wanted"], Int64[np.ndarray, "centre wanted"]]:
    """Return distances and rows of the nearest others; infinity, and the centre, where there are no more."""
    candidates = min(candidates, tree.n)
    distance, near = tree.query(tree.data[centres], k=np.arange(1, candidates + 1))
    alike = np.diff(distance, axis=1) <= _TIE * distance[:, 1:]
    ring = np.pad(np.cumsum(~alike, axis=1), ((0, 0), (1, 0)))
    ring[near == centres[:, None]] = -1
    order = np.lexsort((near, ring), axis=-1)
    distance, near, ring = (np.take_along_axis(values, order, axis=1) for values in (distance, near, ring))
    beyond = max(0, wanted + 1 - candidates)
    out = (
        np.pad(distance[:, 1 : wanted + 1], ((0, 0), (0, beyond)), constant_values=np.inf),
        np.concatenate([near[:, 1 : wanted + 1], np.repeat(centres[:, None], beyond, axis=1)], axis=1).astype(np.int64),
    )
    if candidates < tree.n:
        # The last place's equals may go on beyond the candidates; among many spots in one place even oneself may be.
        cut = np.flatnonzero((ring[:, 0] != -1) | (ring[:, wanted] == ring[:, -1]))
        size = max(1, _CHUNK // candidates)
        for part in (cut[start : start + size] for start in range(0, len(cut), size)):
            out[0][part], out[1][part] = _nearest(tree, centres[part], wanted=wanted, candidates=2 * candidates)
    return out


def _check(
    xy: Float[np.ndarray, "spot 2"],
    slides: Shaped[np.ndarray, "spot"] | Sequence[str] | None,
    k: int,
    longest: Float64[np.ndarray, "spot"],
) -> None:
    bad = int((~np.isfinite(xy).all(axis=1)).sum())
    if bad:
        msg = f"the places of {bad} of {len(xy)} spots are nan or infinity, so who is near them cannot be said"
        raise SectionError(msg)
    if slides is not None and len(slides) != len(xy):
        msg = f"there are {len(xy)} places and {len(slides)} slide labels: one label per place was wanted"
        raise SectionError(msg)
    if k < 1 or not (longest > 0).all():
        seen = f"k {k} and a length of {longest.min() if len(longest) else '-'}"
        msg = f"a neighbourhood holds its own spot and those within a length above 0, got {seen}: k is 1 at least"
        raise SectionError(msg)
