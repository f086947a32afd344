"""Spots of a simulated section: a Visium array, and the share of each tissue type below each spot."""

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from raystp.errors import SectionError
from raystp.units import Level0Pixels, Microns, MicronsPerPixel, to_level0

PITCH = Microns(100.0)
"""Distance between neighbouring Visium spots; a spot is 55 um wide."""
MARGIN = 0.6
"""Least distance of a spot from the slide's edge, in pitches: 60 um, so that a tile of 112 um (224 px at 0.5 um/px)
fits."""
POINTS_PER_CELL = 4
"""Sample points per cell of the map in each direction, to measure a disc's area."""


def visium_positions(
    width: int, height: int, *, mpp: MicronsPerPixel, pitch: Microns = PITCH
) -> tuple[Float64[np.ndarray, "spot 2"], Int64[np.ndarray, " spot"], Int64[np.ndarray, " spot"]]:
    """Return spot centres (x, y) in level-0 pixels, array_row and array_col, row by row from the top left.

    As on a Visium array, odd rows are shifted by half a pitch and rows are `pitch * sqrt(3) / 2` apart. array_col
    counts half pitches: it is odd in odd rows and even in even rows. Raises SectionError where the slide is too small
    for a spot.
    """
    step, row_step = to_level0(pitch, mpp), to_level0(pitch, mpp) * np.sqrt(3.0) / 2.0
    margin = MARGIN * step
    if min(width, height) < 2.0 * margin:
        msg = f"a slide of {width} x {height} px is too small for a spot: each side must be {2 * margin:.0f} px or more"
        raise SectionError(msg)
    rows = int((height - 2.0 * margin) / row_step) + 1
    cols = int((width - 2.0 * margin) / (0.5 * step)) + 1
    row, col = (part.ravel() for part in np.indices((rows, cols)))
    kept = (row + col) % 2 == 0
    row, col = row[kept].astype(np.int64), col[kept].astype(np.int64)
    return np.stack([margin + col * step / 2.0, margin + row * row_step], axis=1), row, col


def type_fractions(
    tissue_map: UInt8[np.ndarray, "row col"],
    xy: Float64[np.ndarray, "spot 2"],
    *,
    cell: int,
    radius_px: Level0Pixels,
    types: int,
) -> Float64[np.ndarray, "spot {types}+1"]:
    """Return the share of each spot's disc that lies on each type, glass first; the area off the slide is glass.

    `cell` is the side of one cell of the map in level-0 pixels. Shares are measured on a grid of points, and sum to 1.
    Raises SectionError where the map has a type above `types`.
    """
    if int(tissue_map.max(initial=0)) > types:
        msg = f"the tissue map has type {tissue_map.max()}, expected types 0 to {types}"
        raise SectionError(msg)
    step = min(cell, radius_px) / POINTS_PER_CELL
    line = np.arange(-int(radius_px / step), int(radius_px / step) + 1) * step
    disc = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    disc = disc[np.hypot(*disc.T) <= radius_px]
    cells = np.floor((xy[:, None, :] + disc[None, :, :]) / cell).astype(np.int64)  # (spot, point, 2)
    inside = ((cells >= 0) & (cells < (tissue_map.shape[1], tissue_map.shape[0]))).all(axis=2)
    kinds = np.where(inside, tissue_map[cells[..., 1] * inside, cells[..., 0] * inside], 0)
    return np.stack([(kinds == kind).mean(axis=1) for kind in range(types + 1)], axis=1)
