"""Find the spots or tiles around each one: positions in, row numbers of the nearest and a mask out.

Neighbours are found by distance, so a square array, a hexagonal one, a grid of tiles and an irregular set are one
case: no array coordinate is read. At the edge of the tissue the k nearest are farther away than elsewhere; `within`, a
length, excludes those that are not true neighbours. Spots of other slides are never neighbours.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64, Shaped
from scipy.spatial import cKDTree

from raystp.errors import SectionError
from raystp.units import tile_centres

NODES = 9
"""A spot and its 8 neighbours: the 3 x 3 of a square array (NH2ST, arXiv 2506.23827, and TRIPLEX before it)."""

REACH = 1.5
"""In pitches. Includes all 8 neighbours on a square array (the corners are at 1.41) and all 6 on a hexagonal one,
where the next ones are at 1.73."""

_TIE = 1e-9
"""Distances that differ by less than this share are equal: those of a lattice are, up to their last bits."""

_SPARE = 8
"""Extra candidates, so that on any lattice all ties for the last neighbour are among the first candidates."""

_CHUNK = 1 << 16
"""Spots per query: limits memory (about 50 MB) and does not change the result."""


@dataclass(frozen=True)
class SpotNeighbours:
    """The neighbourhoods, one row per spot; the first node is the spot itself, the others follow by distance."""

    rows: Int64[np.ndarray, "spot node"]
    """Row numbers. Where a neighbour is absent, the spot's own number is there, so that every number is valid."""
    mask: Bool[np.ndarray, "spot node"]
    """Which nodes are neighbours, or the spot itself in the first column."""


def neighbours(
    xy: Float[np.ndarray, "spot 2"],
    slides: Shaped[np.ndarray, "spot"] | Sequence[str] | None = None,
    *,
    k: int = NODES,
    within: float | Float[np.ndarray, "spot"] | None = None,
) -> SpotNeighbours:
    """Return each spot's `k` nearest of its own slide, itself included and first; ties go to the lower rows.

    `slides` labels the spots in any order; without it all spots are on one slide. `within` is in the unit of `xy`: the
    largest distance of a neighbour (`REACH` pitches), one for all or one per spot; without it the k nearest count at
    any distance. On a slide with fewer spots than `k` some nodes are absent. Takes n log n time. Raises SectionError
    for positions that are not finite, and for a `k`, labels or lengths that do not fit.
    """
    longest = np.broadcast_to(np.asarray(np.inf if within is None else within, dtype=np.float64), (len(xy),))
    _check(xy, slides, k, longest)
    rows = np.repeat(np.arange(len(xy), dtype=np.int64)[:, None], k, axis=1)
    mask = np.zeros((len(xy), k), dtype=np.bool_)
    mask[:, 0] = True
    for members in _rows_of_slides(slides, len(xy)):
        tree = cKDTree(xy[members].astype(np.float64))
        for start in range(0, len(members), _CHUNK):
            centres = np.arange(start, min(start + _CHUNK, len(members)), dtype=np.int64)
            distance, near = _nearest(tree, centres, k=k - 1, candidates=k + _SPARE)
            spots = members[centres]
            found = np.isfinite(distance) & (distance <= longest[spots, None] * (1 + _TIE))
            rows[spots, 1:] = np.where(found, members[near], spots[:, None])
            mask[spots, 1:] = found
    return SpotNeighbours(rows, mask)


def spot_neighbours(boxes: Float64[np.ndarray, "spot 3"], group: Int64[np.ndarray, "spot"]) -> SpotNeighbours:
    """Return the neighbourhoods of tiles in their own slides, within `REACH` of the array's pitch."""
    centres = tile_centres(boxes)
    return neighbours(centres, group, within=REACH * pitches(centres, group))


def pitches(centres: Float64[np.ndarray, "spot 2"], group: Int64[np.ndarray, "spot"]) -> Float64[np.ndarray, "spot"]:
    """Return the pitch of each spot's slide, in the unit of `centres`; infinity on a slide of one spot.

    It is the median distance to the nearest other spot of the slide, which suits hexagonal and square arrays, and grids
    of tiles.
    """
    nearest = neighbours(centres, group, k=2)
    apart = np.linalg.norm(centres - centres[nearest.rows[:, 1]], axis=1)
    pitch = np.full(len(group), np.inf)
    for number in np.unique(group).tolist():
        rows = (group == number) & nearest.mask[:, 1]
        if rows.any():
            pitch[group == number] = float(np.median(apart[rows]))
    return pitch


def neighbour_means(
    features: Float32[np.ndarray, "tile feature"], centres: Float64[np.ndarray, "tile 2"], *, count: int
) -> Float32[np.ndarray, "tile feature"]:
    """Return the mean features of each tile's `count` nearest other tiles; all tiles are of one slide.

    The tile itself is excluded. On a slide with fewer other tiles all of them are averaged; a tile alone has its own
    features. Ties go to the lower rows.
    """
    found = neighbours(centres, k=count + 1)
    total = np.zeros(features.shape, np.float64)
    for node in range(1, count + 1):
        rows = found.mask[:, node]
        total[rows] += features[found.rows[rows, node]]
    number = found.mask[:, 1:].sum(axis=1)
    total[number == 0] = features[number == 0]
    mean: Float32[np.ndarray, "tile feature"] = (total / np.maximum(number, 1)[:, None]).astype(np.float32)
    return mean


def _rows_of_slides(
    slides: Shaped[np.ndarray, "spot"] | Sequence[str] | None, count: int
) -> Iterator[Int64[np.ndarray, "member"]]:
    """Yield the rows of each slide, ascending."""
    if slides is None:
        yield np.arange(count, dtype=np.int64)
        return
    number = np.unique(np.asarray(slides), return_inverse=True)[1]
    order = np.argsort(number, kind="stable").astype(np.int64)
    yield from np.split(order, np.flatnonzero(np.diff(number[order])) + 1)


def _nearest(
    tree: cKDTree, centres: Int64[np.ndarray, "centre"], *, k: int, candidates: int
) -> tuple[Float64[np.ndarray, "centre k"], Int64[np.ndarray, "centre k"]]:
    """Return distances and rows of the k nearest others; infinity and the centre itself where there are fewer."""
    candidates = min(candidates, tree.n)
    distance, near = tree.query(tree.data[centres], k=np.arange(1, candidates + 1))
    tied = np.diff(distance, axis=1) <= _TIE * distance[:, 1:]
    ring = np.pad(np.cumsum(~tied, axis=1), ((0, 0), (1, 0)))
    ring[near == centres[:, None]] = -1
    order = np.lexsort((near, ring), axis=-1)
    distance, near, ring = (np.take_along_axis(values, order, axis=1) for values in (distance, near, ring))
    missing = max(0, k + 1 - candidates)
    out = (
        np.pad(distance[:, 1 : k + 1], ((0, 0), (0, missing)), constant_values=np.inf),
        np.concatenate([near[:, 1 : k + 1], np.repeat(centres[:, None], missing, axis=1)], axis=1).astype(np.int64),
    )
    if candidates < tree.n:
        # Ties for the last neighbour may extend beyond the candidates. With many spots at one position, even the spot
        # itself may be absent from them. Such rows are queried again with twice the candidates.
        unsure = np.flatnonzero((ring[:, 0] != -1) | (ring[:, k] == ring[:, -1]))
        size = max(1, _CHUNK // candidates)
        for part in (unsure[start : start + size] for start in range(0, len(unsure), size)):
            out[0][part], out[1][part] = _nearest(tree, centres[part], k=k, candidates=2 * candidates)
    return out


def _check(
    xy: Float[np.ndarray, "spot 2"],
    slides: Shaped[np.ndarray, "spot"] | Sequence[str] | None,
    k: int,
    longest: Float64[np.ndarray, "spot"],
) -> None:
    bad = int((~np.isfinite(xy).all(axis=1)).sum())
    if bad:
        msg = f"the positions of {bad} of {len(xy)} spots are nan or infinite, so their neighbours are undefined"
        raise SectionError(msg)
    if slides is not None and len(slides) != len(xy):
        msg = f"there are {len(xy)} positions and {len(slides)} slide labels: expected one label per position"
        raise SectionError(msg)
    if k < 1 or not (longest > 0).all():
        found = f"k {k} and a length of {longest.min() if len(longest) else '-'}"
        msg = f"a neighbourhood needs k of 1 or more and a length above 0, got {found}"
        raise SectionError(msg)
