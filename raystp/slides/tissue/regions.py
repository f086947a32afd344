"""Regions of a slide as polygons in level-0 px: from a mask's pixels, and exactly how much of each tile they cover.

A mask's outline runs along its pixels' edges, so nothing is lost: the polygons cover exactly what the pixels did. Areas
are exact too, whatever the polygons' shape: each edge is cut where it crosses a line of the tiles' grid, and what each
piece adds to its cell follows from Green's theorem. Regions are valid polygons without overlap, x the column and y the
row, empty where there is nothing. Cost goes with the edges, not with tiles times edges: 40,000 tiles
under 10,000 edges take 40 CPU-ms, where clipping them row by row takes 4.6 s.
"""

import numpy as np
import shapely
from jaxtyping import Bool, Float64

from raystp.slides.tissue.morphology import ranges


def outlined(mask: Bool[np.ndarray, "row col"], *, width: int, height: int) -> shapely.MultiPolygon:
    """Return the outline of a mask that covers a whole slide of `width` x `height` level-0 px, whatever its own size.

    Pixels that touch at a corner alone are two polygons.
    """
    lines = np.concatenate([_lines(mask), _lines(mask.T)[..., ::-1]])
    faces = shapely.get_parts(shapely.polygonize(shapely.linestrings(lines)))
    column, row = np.floor(shapely.get_coordinates(shapely.point_on_surface(faces))).astype(np.int64).T
    rows, columns = mask.shape
    parts = faces[mask[row, column]]
    return shapely.transform(shapely.MultiPolygon(list(parts)), lambda xy: xy * (width / columns, height / rows))


def share_under(regions: shapely.MultiPolygon, squares: Float64[np.ndarray, "tile 3"]) -> Float64[np.ndarray, " tile"]:
    """Return the share of each square (x, y, side) of a grid that lies in the regions.

    Meant for squares in rows and columns: memory goes with the distinct x times the distinct y.
    """
    first, last = squares[:, :2], squares[:, :2] + squares[:, 2:]
    x, y = (np.unique(np.concatenate([first[:, axis], last[:, axis]])) for axis in (0, 1))
    integral = np.zeros((len(y), len(x)))
    integral[1:, 1:] = areas(regions, x, y).cumsum(axis=0).cumsum(axis=1)
    left, right = (np.searchsorted(x, corner[:, 0]) for corner in (first, last))
    top, bottom = (np.searchsorted(y, corner[:, 1]) for corner in (first, last))
    inside = integral[bottom, right] - integral[bottom, left] - integral[top, right] + integral[top, left]
    share: Float64[np.ndarray, " tile"] = inside / squares[:, 2] ** 2
    return share


def rastered(
    regions: shapely.MultiPolygon, shape: tuple[int, int], *, width: int, height: int
) -> tuple[Bool[np.ndarray, "row col"], float]:
    """Return which pixels of a picture of the whole slide are half or more in the regions, and their exact share."""
    rows, columns = shape
    covered = areas(regions, np.linspace(0.0, width, columns + 1), np.linspace(0.0, height, rows + 1))
    whole = width * height
    return covered >= 0.5 * whole / (rows * columns), float(covered.sum()) / whole


def areas(
    regions: shapely.MultiPolygon, x: Float64[np.ndarray, " across"], y: Float64[np.ndarray, " down"]
) -> Float64[np.ndarray, "down-1 across-1"]:
    """Return the exact area of the regions in each cell between the ascending lines `x` and `y`.

    A piece of an edge that climbs by dy at a mean x covers dy * (x - line) of its own cell and dy * width of each cell
    to the left of it; around a whole polygon this adds up to its area, holes taken off.
    """
    start, step = _edges(regions)
    edge, begin, end = _pieces(start, step, x, y)
    middle = start[edge] + step[edge] * ((begin + end) / 2.0)[:, None]
    climb = step[edge, 1] * (end - begin)
    column, row = np.searchsorted(x, middle[:, 0], side="right") - 1, np.searchsorted(y, middle[:, 1], side="right") - 1
    inside = (row >= 0) & (row < len(y) - 1) & (column >= 0)
    climb, column, row, across = climb[inside], column[inside], row[inside], middle[inside, 0]
    cell, shape = row * len(x) + column, (len(y) - 1, len(x))  # the last column holds what lies beyond the last line
    own = np.bincount(cell, climb * (across - x[column]), shape[0] * shape[1]).reshape(shape)[:, :-1]
    climbs = np.bincount(cell, climb, shape[0] * shape[1]).reshape(shape)
    beyond = climbs[:, :0:-1].cumsum(axis=1)[:, ::-1]
    covered: Float64[np.ndarray, "down-1 across-1"] = own + beyond * np.diff(x)
    return covered


def _edges(regions: shapely.MultiPolygon) -> tuple[Float64[np.ndarray, "edge 2"], Float64[np.ndarray, "edge 2"]]:
    """Return where each edge begins and how far it goes, outer rings one way round and holes the other."""
    rings = shapely.get_rings(shapely.get_parts(shapely.orient_polygons(regions)))
    points, ring = shapely.get_coordinates(rings, return_index=True)
    same = ring[1:] == ring[:-1]
    return points[:-1][same], (points[1:] - points[:-1])[same]


def _pieces(
    start: Float64[np.ndarray, "edge 2"],
    step: Float64[np.ndarray, "edge 2"],
    x: Float64[np.ndarray, " across"],
    y: Float64[np.ndarray, " down"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut edges at the lines they cross: return each piece's edge, and the shares of it where it begins and ends."""
    every = np.arange(len(start))
    edges, shares = [every, every], [np.zeros(len(start)), np.ones(len(start))]
    for axis, lines in ((0, x), (1, y)):
        a, b = start[:, axis], start[:, axis] + step[:, axis]
        first = np.searchsorted(lines, np.minimum(a, b), side="right")
        count = np.maximum(np.searchsorted(lines, np.maximum(a, b), side="left") - first, 0)
        crossing = np.repeat(every, count)
        edges.append(crossing)
        shares.append((lines[ranges(first, count)] - a[crossing]) / step[crossing, axis])
    edge, share = np.concatenate(edges), np.concatenate(shares)
    order = np.lexsort((share, edge))
    edge, share = edge[order], share[order]
    same = edge[1:] == edge[:-1]
    return edge[:-1][same], share[:-1][same], share[1:][same]


def _lines(mask: Bool[np.ndarray, "row col"]) -> Float64[np.ndarray, "line 2 2"]:
    """Return the horizontal lines of a mask's outline, from corner to corner, as ((x, y), (x, y)).

    A line is over where what is below it changes sides, so that two pixels that touch at a corner meet at an end.
    """
    turn = np.diff(np.pad(mask, 1).astype(np.int8), axis=0)[:, 1:-1]  # 1 where the mask begins below, -1 where it ends
    found = []
    for sign in (1, -1):
        ends = np.diff(np.pad(turn == sign, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        (row, begin), (_, end) = np.nonzero(ends == 1), np.nonzero(ends == -1)
        found.append(np.stack([np.stack([begin, row], axis=1), np.stack([end, row], axis=1)], axis=1))
    lines: Float64[np.ndarray, "line 2 2"] = np.concatenate(found).astype(np.float64)
    return lines
