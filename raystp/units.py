"""Types of lengths: um of tissue, level-0 pixels of a slide, pixels of a tile.

A type checker refuses a length of one frame where another is expected. At run time they are plain numbers. The idea is
from KatherLab/STAMP (`src/stamp/types.py`).
"""

from typing import NewType

import numpy as np
from jaxtyping import Float, Float64

Microns = NewType("Microns", float)
MicronsPerPixel = NewType("MicronsPerPixel", float)
Level0Pixels = NewType("Level0Pixels", float)
TilePixels = NewType("TilePixels", int)

NATIVE_TOLERANCE = 0.01
"""A scan within 1 % of the target um/px is read as it is (0.499 for 0.5); any other is resampled to it exactly."""

MPP_RANGE = (0.05, 10.0)
"""Plausible um/px of a scan: 352.8 comes from a dpi tag, 0 and nan are absent values."""


def to_level0(length: Microns, mpp: MicronsPerPixel) -> Level0Pixels:
    """Return a length of tissue in level-0 pixels of a slide with `mpp` um/px."""
    return Level0Pixels(length / mpp)


def to_microns(length: Level0Pixels, mpp: MicronsPerPixel) -> Microns:
    """Return a length in level-0 pixels as um of tissue."""
    return Microns(length * mpp)


def target_mpp(tile_um: Microns, tile_px: TilePixels) -> MicronsPerPixel:
    """Return the um/px of a tile with a side of `tile_um` um and `tile_px` pixels."""
    return MicronsPerPixel(tile_um / tile_px)


def is_native(mpp: MicronsPerPixel, target: MicronsPerPixel) -> bool:
    """Return whether a slide's own pixels are used for the target um/px, see `NATIVE_TOLERANCE`."""
    return abs(mpp / target - 1.0) <= NATIVE_TOLERANCE


def is_plausible(mpp: float | None) -> bool:
    """Return whether a number can be the um/px of a scan: finite and inside `MPP_RANGE`."""
    return mpp is not None and MPP_RANGE[0] <= mpp <= MPP_RANGE[1]


def tile_centres(boxes: Float[np.ndarray, "tile 3"]) -> Float64[np.ndarray, "tile 2"]:
    """Return the centres (x, y) of tile boxes (x, y, side); corner and side in level-0 px."""
    return boxes[:, :2].astype(np.float64) + boxes[:, 2:].astype(np.float64) / 2.0
