"""Lengths that cannot be mixed up.

Three frames occur: tissue (micrometres), the slide's own pixel grid (level 0, the finest scan) and the pixels of a tile
as an encoder sees it. Each has a type, so that a checker refuses one where another is meant. At run time they are plain
numbers. The idea is KatherLab/STAMP's (`src/stamp/types.py`).
"""

from typing import NewType

import numpy as np
from jaxtyping import Float, Float64

Microns = NewType("Microns", float)
MicronsPerPixel = NewType("MicronsPerPixel", float)
Level0Pixels = NewType("Level0Pixels", float)
TilePixels = NewType("TilePixels", int)

NATIVE_TOLERANCE = 0.01
"""A scan within 1 % of the wanted um/px is read as it is (0.499 for 0.5); beyond, it is resampled to it exactly."""

MPP_RANGE = (0.05, 10.0)
"""um/px outside this range is no microscope's: 352.8 is a dpi tag, 0 and nan are absent values."""


def to_level0(length: Microns, mpp: MicronsPerPixel) -> Level0Pixels:
    """Return a length on the tissue as level-0 pixels of a slide scanned at `mpp` um/px."""
    return Level0Pixels(length / mpp)


def to_microns(length: Level0Pixels, mpp: MicronsPerPixel) -> Microns:
    """Return a length in level-0 pixels as micrometres of tissue."""
    return Microns(length * mpp)


def target_mpp(side: Microns, pixels: TilePixels) -> MicronsPerPixel:
    """Return the um/px at which a tile of `side` um fills `pixels` pixels."""
    return MicronsPerPixel(side / pixels)


def is_native(mpp: MicronsPerPixel, target: MicronsPerPixel) -> bool:
    """Say whether a slide's own pixels serve as the target's, within `NATIVE_TOLERANCE`."""
    return abs(mpp / target - 1.0) <= NATIVE_TOLERANCE


def is_plausible(mpp: float | None) -> bool:
    """Say whether a number can be the um/px of a scan: finite and inside `MPP_RANGE`."""
    return mpp is not None and MPP_RANGE[0] <= mpp <= MPP_RANGE[1]


def tile_centres(boxes: Float[np.ndarray, "tile 3"]) -> Float64[np.ndarray, "tile 2"]:
    """Return the centres (x, y) of tile boxes (x, y, side); corner and side in level-0 px."""
    return boxes[:, :2].astype(np.float64) + boxes[:, 2:].astype(np.float64) / 2.0
