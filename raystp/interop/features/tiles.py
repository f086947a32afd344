"""The tiles and vectors of one slide, as every format of `features` is read into, and written from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Float64
from shapely.geometry.base import BaseGeometry

Vectors = Float[np.ndarray, "tile dim"]
"""float32 or float16, as they are stored."""


@dataclass(frozen=True)
class TileVectors:
    """The tiles of one slide in the order of their file, and one vector of each."""

    slide: str
    boxes: Float64[np.ndarray, "tile 3"]
    """Top-left corner (x, y) and side, in level-0 px."""
    vectors: Vectors
    tile_px: int
    """Side of a tile in px, as the encoder has read it; 0 where the file does not say."""
    tile_um: float | None = None
    """Side in um that was asked for, the same for all slides: sides in whole px differ from it a little."""
    mpp: float | None = None
    """um/px of the scan, by the file or by the slide table that was given; None where neither has it."""
    size: tuple[int, int] | None = None
    """Width and height of the slide in level-0 px, where the file has them."""
    encoder: str | None = None
    """The tool's own name of the encoder."""
    spots: tuple[str | None, ...] | None = None
    """Spot of each tile, where the format names them."""
    tissue: BaseGeometry | None = None
    """The tissue that the tool found, in level-0 px."""
    image: str | None = None
    """The slide's file, where the format names it: a path of the machine that wrote it."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """The tool's own attributes, as plain JSON values. On writing: the source, for the attribute `raystp`."""
    notes: tuple[str, ...] = ()
    """What was assumed, converted or left out, a sentence each."""
