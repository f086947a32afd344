"""The readers to compare: each reads tile boxes of level 0 into given memory.

Peers are used as their documentation shows: one `read_region` a tile (OpenSlide, tiffslide, cuCIM), one `Region.fetch`
a tile (pyvips). They are not dependencies of raystp; the bench names those that cannot be imported and skips them.
"""

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from raystp.slides.open import open_slide, read_tiles
from raystp.slides.tiled.slide import TiledSlide
from raystp.storage import StoragePath
from raystp.units import TilePixels

Boxes = Int64[np.ndarray, "tile 3"]
Tiles = UInt8[np.ndarray, "tile pixel pixel 3"]
Read = Callable[[Boxes, Tiles], None]


def ours(path: Path) -> Read:
    """Return raystp's `read_tiles`."""
    slide = open_slide("bench", StoragePath.of(path), given_mpp=0.5)
    assert isinstance(slide, TiledSlide)

    def read(boxes: Boxes, tiles: Tiles) -> None:
        read_tiles(slide, boxes.astype(np.float64), TilePixels(tiles.shape[1]), into=tiles)

    return read


def openslide(path: Path) -> Read:
    """Return openslide-python's `read_region`."""
    handle = importlib.import_module("openslide").OpenSlide(path)

    def read(boxes: Boxes, tiles: Tiles) -> None:
        for tile, (x, y, side) in enumerate(boxes.tolist()):
            tiles[tile] = np.asarray(handle.read_region((x, y), 0, (side, side)))[..., :3]

    return read


def tiffslide(path: Path) -> Read:
    """Return tiffslide's `read_region`."""
    handle = importlib.import_module("tiffslide").TiffSlide(path)

    def read(boxes: Boxes, tiles: Tiles) -> None:
        for tile, (x, y, side) in enumerate(boxes.tolist()):
            tiles[tile] = handle.read_region((x, y), 0, (side, side), as_array=True)

    return read


def cucim(path: Path) -> Read:
    """Return cuCIM's `read_region` on the CPU."""
    handle = importlib.import_module("cucim").CuImage(os.fspath(path))

    def read(boxes: Boxes, tiles: Tiles) -> None:
        for tile, (x, y, side) in enumerate(boxes.tolist()):
            tiles[tile] = np.asarray(handle.read_region((x, y), (side, side), 0))

    return read


def pyvips(path: Path) -> Read:
    """Return pyvips' `Region.fetch`."""
    vips: Any = importlib.import_module("pyvips")
    vips.cache_set_max(0)  # otherwise a reopened slide still has its decoded tiles in the cache
    image = vips.Image.tiffload(os.fspath(path))
    region = vips.Region.new(image)

    def read(boxes: Boxes, tiles: Tiles) -> None:
        for tile, (x, y, side) in enumerate(boxes.tolist()):
            fetched = np.frombuffer(region.fetch(x, y, side, side), np.uint8)
            tiles[tile] = fetched.reshape(side, side, -1)[..., :3]

    return read


READERS: dict[str, Callable[[Path], Read]] = {
    "raystp": ours,
    "openslide": openslide,
    "tiffslide": tiffslide,
    "cucim": cucim,
    "pyvips": pyvips,
}
