"""Regions of a slide as polygons in level-0 px: from a mask's pixels, and their exact share of each tile.

A mask's outline follows its pixels' edges, so the polygons cover exactly the mask's pixels. Areas are exact for
polygons of any shape: each edge is cut at the lines of the tiles' grid. Each piece adds to its cell by Green's theorem.
Regions are valid polygons without overlap, x the column and y the row. The cost grows with the number of
edges: 40,000 tiles under 10,000 edges take 40 CPU-ms, clipping them row by row takes 4.6 s.
"""

import numpy as np
import shapely
from jaxtyping import Bool, Float64, Int64

from raystp.slides.coordinates import Area


def outline(mask: Bool[np.ndarray, "row col"], area: Area) -> shapely.MultiPolygon:
    """Return the outline, in level-0 px of the slide, of a mask of any resolution that covers `area`.

    Pixels that touch only at a corner are separate polygons.
    """
    lines = np.concatenate([_lines(mask), _lines(mask.T)[..., ::-1]])
    faces = shapely.get_parts(shapely.polygonize(shapely.linestrings(lines)))
    column, row = np.floor(shapely.get_coordinates(shapely.point_on_surface(faces))).astype(np.int64).T
    rows, columns = mask.shape
    parts = faces[mask[row, column]]
    scale = area.width / columns, area.height / rows
    return shapely.transform(shapely.MultiPolygon(list(parts)), lambda xy: xy * scale + area.origin)


def share_under(regions: shapely.MultiPolygon, boxes: Float64[np.ndarray, "tile 3"]) -> Float64[np.ndarray, " tile"]:
    """Return the share of each tile box (x, y, side) that is in the regions.

    Meant for boxes on a grid: memory grows with the number of distinct x times the number of distinct y.
    """
    first, last = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    x, y = (np.unique(np.concatenate([first[:, axis], last[:, axis]])) for axis in (0, 1))
    integral = np.zeros((len(y), len(x)))
    integral[1:, 1:] = cell_areas(regions, x, y).cumsum(axis=0).cumsum(axis=1)
    left, right = (np.searchsorted(x, corner[:, 0]) for corner in (first, last))
    top, bottom = (np.searchsorted(y, corner[:, 1]) for corner in (first, last))
    inside = integral[bottom, right] - integral[bottom, left] - integral[top, right] + integral[top, left]
    share: Float64[np.ndarray, " tile"] = inside / boxes[:, 2] ** 2
    return share


def rasterize(
    regions: shapely.MultiPolygon, shape: tuple[int, int], area: Area
) -> tuple[Bool[np.ndarray, "row col"], float]:
    """Return which pixels of an image of `area` are at least half in the regions, and the regions' exact share."""
    rows, columns = shape
    covered = cell_areas(
        regions,
        area.x + np.linspace(0.0, area.width, columns + 1),
        area.y + np.linspace(0.0, area.height, rows + 1),
    )
    whole = area.width * area.height
    return covered >= 0.5 * whole / (rows * columns), float(covered.sum()) / whole


def cell_areas(
    regions: shapely.MultiPolygon, x: Float64[np.ndarray, " across"], y: Float64[np.ndarray, " down"]
) -> Float64[np.ndarray, "down-1 across-1"]:
    """Return the exact area of the regions in each cell between the ascending lines `x` and `y`.

    A piece of an edge that rises by dy at a mean x covers dy * (x - line) of its own cell. It covers dy * width of each
    cell to the left. The sum around a whole polygon is its area, without its holes.
    """
    start, step = _edges(regions)
    edge, begin, end = _pieces(start, step, x, y)
    middle = start[edge] + step[edge] * ((begin + end) / 2.0)[:, None]
    rise = step[edge, 1] * (end - begin)
    column, row = np.searchsorted(x, middle[:, 0], side="right") - 1, np.searchsorted(y, middle[:, 1], side="right") - 1
    inside = (row >= 0) & (row < len(y) - 1) & (column >= 0)
    rise, column, row, across = rise[inside], column[inside], row[inside], middle[inside, 0]
    cell, shape = row * len(x) + column, (len(y) - 1, len(x))  # the last column is for pieces beyond the last line
    own = np.bincount(cell, rise * (across - x[column]), shape[0] * shape[1]).reshape(shape)[:, :-1]
    rises = np.bincount(cell, rise, shape[0] * shape[1]).reshape(shape)
    beyond = rises[:, :0:-1].cumsum(axis=1)[:, ::-1]
    covered: Float64[np.ndarray, "down-1 across-1"] = own + beyond * np.diff(x)
    return covered


def _edges(regions: shapely.MultiPolygon) -> tuple[Float64[np.ndarray, "edge 2"], Float64[np.ndarray, "edge 2"]]:
    """Return the start and the vector of each edge; outer rings turn in one direction and holes in the other."""
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
    """Cut edges at the lines that they cross; return each piece's edge, and its begin and end as shares of the edge."""
    every = np.arange(len(start))
    edges, shares = [every, every], [np.zeros(len(start)), np.ones(len(start))]
    for axis, lines in ((0, x), (1, y)):
        a, b = start[:, axis], start[:, axis] + step[:, axis]
        first = np.searchsorted(lines, np.minimum(a, b), side="right")
        count = np.maximum(np.searchsorted(lines, np.maximum(a, b), side="left") - first, 0)
        crossing = np.repeat(every, count)
        edges.append(crossing)
        shares.append((lines[_ranges(first, count)] - a[crossing]) / step[crossing, axis])
    edge, share = np.concatenate(edges), np.concatenate(shares)
    order = np.lexsort((share, edge))
    edge, share = edge[order], share[order]
    same = edge[1:] == edge[:-1]
    return edge[:-1][same], share[:-1][same], share[1:][same]


def _ranges(first: Int64[np.ndarray, " run"], count: Int64[np.ndarray, " run"]) -> Int64[np.ndarray, " number"]:
    """Return first, first + 1, ... of each run, `count` numbers each, one run after the other."""
    numbers: Int64[np.ndarray, " number"] = np.arange(int(count.sum())) + np.repeat(
        first - count.cumsum() + count, count
    )
    return numbers


def _lines(mask: Bool[np.ndarray, "row col"]) -> Float64[np.ndarray, "line 2 2"]:
    """Return the horizontal lines of a mask's outline, from corner to corner, as ((x, y), (x, y)).

    A line ends where the mask's side changes, so that two pixels that touch at a corner meet at an end.
    """
    turn = np.diff(np.pad(mask, 1).astype(np.int8), axis=0)[:, 1:-1]  # 1: the mask starts below the line, -1: it ends
    found = []
    for sign in (1, -1):
        ends = np.diff(np.pad(turn == sign, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        (row, begin), (_, end) = np.nonzero(ends == 1), np.nonzero(ends == -1)
        found.append(np.stack([np.stack([begin, row], axis=1), np.stack([end, row], axis=1)], axis=1))
    lines: Float64[np.ndarray, "line 2 2"] = np.concatenate(found).astype(np.float64)
    return lines
