"""Pixels that clients of `serve` bring, and those that it reads for them from slides under its own folders.

A picture's size is looked at before it is decoded. A slide is one file below a folder that the config names: a path
with `..`, or a link that leads elsewhere, is as good as absent.
"""

import base64
import binascii
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image

from raystp.cluster.serving.messages import ImputeRequest, SlideRegion
from raystp.errors import ConfigError, SlideError, StorageError
from raystp.slides.open import Slide, open_slide, read_tiles
from raystp.slides.places import TileGeometry
from raystp.storage import StoragePath
from raystp.units import Microns, TilePixels

FORMATS = ("PNG", "JPEG")
MODES = {"RGB", "L", "P", "RGBA"}
FAULTS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
FURTHEST = 1e7
"""Level-0 px from a slide's corner beyond which no region begins."""

Pixels = UInt8[np.ndarray, "tile pixel pixel 3"]


def pictures(texts: Sequence[str], pixels: TilePixels) -> Pixels:
    """Return pictures in base64 as tiles; raises SlideError for one that is none, or not of `pixels` x `pixels`."""
    tiles = np.empty((len(texts), pixels, pixels, 3), np.uint8)
    for number, text in enumerate(texts):
        where = f"pixels: picture number {number}"
        try:
            content = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            msg = f"{where} is not base64: {error}"
            raise SlideError(msg) from None
        tiles[number] = _picture(where, content, pixels)
    return tiles


def _picture(where: str, content: bytes, pixels: TilePixels) -> UInt8[np.ndarray, "pixel pixel 3"]:
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.size == (pixels, pixels) and image.mode in MODES:
                return np.asarray(image.convert("RGB"))
            seen = f"{image.size[0]} x {image.size[1]} px, {image.mode}"
    except FAULTS as error:
        msg = f"{where} is no PNG or JPEG that can be decoded ({type(error).__name__})"
        raise SlideError(msg) from None
    msg = f"{where} is {seen}; the encoder takes 8-bit RGB of {pixels} x {pixels} px"
    raise SlideError(msg)


@dataclass(frozen=True)
class SlideLibrary:
    """The slides that may be named."""

    roots: tuple[str, ...]
    side: float | None
    pixels: TilePixels

    def read(self, asked: ImputeRequest) -> tuple[Float64[np.ndarray, "tile 3"], Pixels]:
        """Return the squares of a region, in level-0 px, and their pixels.

        Raises ConfigError where no slides are served, StorageError for one that is not there, SlideError for one that
        cannot be read there.
        """
        assert asked.slide is not None  # the two are given together
        assert asked.region is not None
        if not self.roots:
            msg = "this service reads no slides: send `embeddings` or `pixels`"
            raise ConfigError(msg)
        place = self.find(asked.slide)
        try:
            with open_slide(asked.slide, place, given_mpp=asked.region.mpp) as slide:
                squares = self._squares(slide, asked.region)
                return squares, read_tiles(slide, squares, self.pixels)
        except SlideError as error:
            msg = str(error).replace(str(place), asked.slide)  # where it lies here is nobody's affair
            raise SlideError(msg) from None

    def find(self, name: str) -> StoragePath:
        """Return the slide of a name below one of the roots; raises StorageError where there is none."""
        for root in self.roots:
            rest = name.removeprefix(root.rstrip("/") + "/")
            if _is_below(rest) and (place := _found(StoragePath.of(root), rest)) is not None:
                return place
        msg = f"there is no slide {name[:200]!r} here"
        raise StorageError(msg)

    def _squares(self, slide: Slide, region: SlideRegion) -> Float64[np.ndarray, "tile 3"]:
        side = region.side or self.side
        assert side is not None  # the config has one where it has roots
        framing = TileGeometry(Microns(side), self.pixels, slide.mpp)
        length = framing.level0(framing.side)
        if not (abs(region.x) <= FURTHEST and abs(region.y) <= FURTHEST and 1 <= length <= FURTHEST):
            msg = f"region: x {region.x:g}, y {region.y:g} with tiles of {length:g} px is on no slide"
            raise SlideError(msg)
        x, y = (
            framing.corners(start + length * np.arange(count, dtype=np.float64))
            for start, count in zip((region.x, region.y), region.tiles, strict=True)
        )
        left, top = np.meshgrid(x, y)  # row by row, from the left
        squares: np.ndarray = np.stack([left.ravel(), top.ravel(), np.full(left.size, length)], axis=1)
        inside = (left < slide.width) & (top < slide.height) & (left + length > 0) & (top + length > 0)
        if not inside.all():
            msg = f"region: a tile lies outside slide {slide.name!r}, which is {slide.width} x {slide.height} px"
            raise SlideError(msg)
        return squares


def _is_below(name: str) -> bool:
    parts = name.split("/")
    return all(part not in {"", ".", ".."} for part in parts) and not any(sign in name for sign in "\\?#%:\0")


def _found(root: StoragePath, name: str) -> StoragePath | None:
    """Return the file of a name below a folder; None where there is none, or where a link leads out of the folder."""
    if not root.is_local:
        place = root / name
        return place if place.exists() and not place.is_folder() else None
    try:
        folder = root.local_path.resolve(strict=True)
        path: Path = (folder / name).resolve(strict=True)
        return StoragePath(str(path)) if path.is_relative_to(folder) and path.is_file() else None
    except (OSError, ValueError, RuntimeError):
        return None
