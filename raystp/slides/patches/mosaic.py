"""An image of a section from its patches, for checking by eye."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64, UInt8

from raystp.errors import SlideError
from raystp.slides.readers.resample import WHITE
from raystp.units import TilePixels

MAX_DRAWN = 4096
"""Patches that are drawn; of more, as many spread evenly over the rows. HEST's Visium sections have up to 5,000."""

COVER_PX = 1024
"""Px along the longer side of the image on which the covered share is measured."""

GREY = 200
"""The colour of a patch that is not drawn, or cannot be read."""


def draw_mosaic(
    read: Callable[[int, TilePixels], UInt8[np.ndarray, "pixel pixel 3"]],
    boxes: Float64[np.ndarray, "patch 3"],
    size: tuple[int, int],
    longest: int,
) -> UInt8[np.ndarray, "row col 3"]:
    """Return an image of (width, height) = `size` level-0 px with `longest` px along its longer side, never enlarged.

    The boxes (x, y, side) have one side. Patches are drawn in the order of the rows, later ones over earlier ones. Of
    more than `MAX_DRAWN` the others are grey, as are patches that cannot be read.
    """
    share = min(1.0, longest / max(size))
    columns, rows = (max(1, round(length * share)) for length in size)
    image = np.full((rows, columns, 3), WHITE, np.uint8)
    px = TilePixels(max(1, round(float(boxes[0, 2]) * share)))
    places = np.rint(boxes[:, :2] * share).astype(np.int64).tolist()
    for x, y in places:
        _paste(image, np.full((px, px, 3), GREY, np.uint8), x, y)
    for row in np.unique(np.linspace(0, len(boxes) - 1, min(MAX_DRAWN, len(boxes))).astype(np.int64)).tolist():
        try:
            patch = read(row, px)
        except SlideError:
            continue  # `embed` names it
        _paste(image, patch, *places[row])
    return image


def _paste(image: UInt8[np.ndarray, "row col 3"], patch: UInt8[np.ndarray, "pixel pixel 3"], x: int, y: int) -> None:
    """Write the part of a patch at (x, y) that is inside the image."""
    left, top = max(0, -x), max(0, -y)
    part = patch[top : max(top, image.shape[0] - y), left : max(left, image.shape[1] - x)]
    if part.size:
        x, y = x + left, y + top
        image[y : y + part.shape[0], x : x + part.shape[1]] = part


def covered_share(boxes: Float64[np.ndarray, "patch 3"], size: tuple[int, int]) -> float:
    """Return the share of (width, height) = `size` level-0 px that boxes cover, to about a thousandth."""
    share = min(1.0, COVER_PX / max(size))
    covered = np.zeros([max(1, round(length * share)) for length in size[::-1]], np.bool_)
    ends = boxes[:, :2] + boxes[:, 2:]
    edges = np.rint(np.clip(np.concatenate([boxes[:, :2], ends], axis=1) * share, 0, None)).astype(np.int64)
    for left, top, right, bottom in edges.tolist():
        covered[top:bottom, left:right] = True
    return float(covered.mean())
