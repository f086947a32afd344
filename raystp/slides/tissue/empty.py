"""Stored tiles without bytes amid tissue: scanners leave out empty glass like that, and so does a broken copy.

Such tiles are white. At the edge of glass that was left out, the pixels beside the stored tile are glass too. If they
are tissue all around, the stored tile is missing.
"""

import numpy as np
from jaxtyping import Bool, Float64
from scipy import ndimage

from raystp.slides.coordinates import Area

RING_PX = 1, 3
"""Nearest and farthest mask pixels beside a stored tile that are looked at; the nearest are mixed with its white."""

MIN_TISSUE = 0.8
"""Share of the pixels around that must be tissue."""


def tiles_missing_in_tissue(
    empty: Float64[np.ndarray, "region 4"], mask: Bool[np.ndarray, "row col"], area: Area
) -> list[tuple[int, int, int, int]]:
    """Return groups of adjacent empty stored tiles with tissue around them, as (x, y, width, height) in level-0 px.

    `mask` is the tissue of `area`. A group at the edge of the area is never returned.
    """
    if not len(empty) or not mask.any():
        return []
    rows, columns = mask.shape
    scale = np.array([columns / area.width, rows / area.height] * 2)
    edges = (np.column_stack([empty[:, :2], empty[:, :2] + empty[:, 2:]]) - [area.x, area.y, area.x, area.y]) * scale
    is_empty = np.zeros(mask.shape, np.bool_)
    for left, top, right, bottom in np.rint(edges).astype(np.int64).tolist():
        is_empty[max(0, top) : max(0, bottom, top + 1), max(0, left) : max(0, right, left + 1)] = True
    labels, _ = ndimage.label(is_empty, structure=np.ones((3, 3)))
    found: list[tuple[int, int, int, int]] = []
    reach = RING_PX[1]
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        down, across = place
        if min(down.start, across.start) == 0 or down.stop == rows or across.stop == columns:
            continue
        wide = (
            slice(max(0, down.start - reach), down.stop + reach),
            slice(max(0, across.start - reach), across.stop + reach),
        )
        one = labels[wide] == number
        near, far = (ndimage.binary_dilation(one, np.ones((3, 3)), iterations=step) for step in RING_PX)
        if mask[wide][far & ~near & ~is_empty[wide]].mean() >= MIN_TISSUE:
            x, y = area.x + across.start / scale[0], area.y + down.start / scale[1]
            width, height = (across.stop - across.start) / scale[0], (down.stop - down.start) / scale[1]
            found.append((round(x), round(y), round(width), round(height)))
    return found


def note_missing_tiles(
    empty: Float64[np.ndarray, "region 4"], mask: Bool[np.ndarray, "row col"], area: Area
) -> list[str]:
    """Return a warning if stored tiles without bytes are amid tissue."""
    found = tiles_missing_in_tissue(empty, mask, area)
    if not found:
        return []
    x, y, width, height = found[0]
    return [
        f"stored tiles without bytes amid tissue, which are white: {len(found)}, the first at x {x}, y {y} "
        f"({width} x {height} px); copy the file again from its source, or leave the place out with a mask"
    ]
