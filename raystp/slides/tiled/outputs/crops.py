"""Targets that are copied without resampling."""

import numpy as np
from jaxtyping import UInt8

from raystp.slides.tiled.outputs.copies import Copier, Pixels, Tiles
from raystp.slides.tiled.read_plan import ReadPlan


class CropOutputs:
    """Targets that are copied without resampling."""

    def __init__(self, tiles: Tiles, plan: ReadPlan) -> None:
        self._tiles = tiles
        self._shape = tiles.shape[1:] if tiles.flags.c_contiguous else ()
        self._copier = Copier(tiles, plan, past_cache=True)

    def direct_buffer(self, target: int, shape: tuple[int, int, int]) -> Pixels | None:
        """Return a target's memory to decode into; see `OutputBuffers`."""
        return self._tiles[target] if shape == self._shape else None

    def copy(self, first: int, last: int, stored: UInt8[np.ndarray, "height width 3"]) -> None:
        """Copy parts of a stored tile; see `OutputBuffers`."""
        self._copier.copy(first, last, stored)

    def finish_part(self, target: int) -> None:
        """Do nothing; see `OutputBuffers`."""
