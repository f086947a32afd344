"""Pixels of requests: images that clients send, and tiles of slides in the service's own folders.

An image's size is checked before it is decoded. A slide is a file inside a folder of the config: a path with `..`, or
a symbolic link that leaves the folder, is treated as absent.
"""

import base64
import binascii
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image

from raystp.cluster.serving.messages import ImputeRequest, SlideRegion
from raystp.errors import ConfigError, SlideError, StorageError
from raystp.slides.coordinates import TileGeometry
from raystp.slides.open import Slide, open_slide, read_tiles
from raystp.storage import StoragePath
from raystp.units import Microns, TilePixels

FORMATS = ("PNG", "JPEG")
MODES = {"RGB", "L", "P", "RGBA"}
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
MAX_COORDINATE = 1e7
"""Level-0 px; a region with a larger coordinate or tile side is refused."""

Pixels = UInt8[np.ndarray, "tile pixel pixel 3"]


def decode_images(images: Sequence[str], tile_px: TilePixels) -> Pixels:
    """Decode base64 images to tiles; raise SlideError for an invalid one, or one that is not `tile_px` x `tile_px`."""
    tiles = np.empty((len(images), tile_px, tile_px, 3), np.uint8)
    for number, text in enumerate(images):
        name = f"pixels: image {number}"
        try:
            content = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            msg = f"{name} is not base64: {error}"
            raise SlideError(msg) from None
        tiles[number] = _decode(name, content, tile_px)
    return tiles


def _decode(name: str, content: bytes, tile_px: TilePixels) -> UInt8[np.ndarray, "pixel pixel 3"]:
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.size == (tile_px, tile_px) and image.mode in MODES:
                return np.asarray(image.convert("RGB"))
            found = f"{image.size[0]} x {image.size[1]} px, {image.mode}"
    except DECODE_ERRORS as error:
        msg = f"{name} is not a valid PNG or JPEG ({type(error).__name__})"
        raise SlideError(msg) from None
    msg = f"{name} is {found}; the encoder reads 8-bit RGB of {tile_px} x {tile_px} px"
    raise SlideError(msg)


@dataclass(frozen=True)
class SlideLibrary:
    """The slides that clients may name."""

    folders: tuple[str, ...]
    tile_um: float | None
    """Side of the model's tiles in um."""
    tile_px: TilePixels

    def read(self, request: ImputeRequest) -> tuple[Float64[np.ndarray, "tile 3"], Pixels]:
        """Return the tile boxes of a request's region, in level-0 px, and their pixels.

        Raises ConfigError for a service without slides, StorageError for an unknown slide, SlideError for a region or
        slide that cannot be read.
        """
        assert request.slide is not None  # `from_json` requires both
        assert request.region is not None
        if not self.folders:
            msg = "this service reads no slides: send `embeddings` or `pixels`"
            raise ConfigError(msg)
        path = self.find(request.slide)
        try:
            with open_slide(request.slide, path, given_mpp=request.region.mpp) as slide:
                tile_boxes = self._tile_boxes(slide, request.region)
                return tile_boxes, read_tiles(slide, tile_boxes, self.tile_px)
        except SlideError as error:
            msg = str(error).replace(str(path), request.slide)  # clients do not learn the server's paths
            raise SlideError(msg) from None

    def find(self, name: str) -> StoragePath:
        """Return the path of a slide in one of the folders; raise StorageError if there is none."""
        for folder in self.folders:
            relative = name.removeprefix(folder.rstrip("/") + "/")
            if _is_inside(relative) and (path := _existing(StoragePath.of(folder), relative)) is not None:
                return path
        msg = f"unknown slide {name[:200]!r}"
        raise StorageError(msg)

    def _tile_boxes(self, slide: Slide, region: SlideRegion) -> Float64[np.ndarray, "tile 3"]:
        tile_um = self.tile_um
        assert tile_um is not None  # checked at the start, with `slides`
        if region.tile_um is not None and not math.isclose(region.tile_um, tile_um, rel_tol=1e-6):
            msg = f"region: tile_um is {region.tile_um:g}, and the model reads tiles of {tile_um:g} um: leave it out"
            raise SlideError(msg)
        geometry = TileGeometry(Microns(tile_um), self.tile_px, slide.mpp)
        side = geometry.level0(geometry.tile_um)
        if not (abs(region.x) <= MAX_COORDINATE and abs(region.y) <= MAX_COORDINATE and 1 <= side <= MAX_COORDINATE):
            msg = f"region: x {region.x:g}, y {region.y:g} with tiles of {side:g} px is outside every slide"
            raise SlideError(msg)
        x, y = (
            geometry.corners(start + side * np.arange(count, dtype=np.float64))
            for start, count in zip((region.x, region.y), region.tiles, strict=True)
        )
        left, top = np.meshgrid(x, y)  # row by row, from the left
        tile_boxes: np.ndarray = np.stack([left.ravel(), top.ravel(), np.full(left.size, side)], axis=1)
        inside = (left < slide.width) & (top < slide.height) & (left + side > 0) & (top + side > 0)
        if not inside.all():
            msg = f"region: a tile lies outside slide {slide.name!r}, which is {slide.width} x {slide.height} px"
            raise SlideError(msg)
        return tile_boxes


def _is_inside(name: str) -> bool:
    parts = name.split("/")
    return all(part not in {"", ".", ".."} for part in parts) and not any(sign in name for sign in "\\?#%:\0")


def _existing(folder: StoragePath, name: str) -> StoragePath | None:
    """Return the path of a file in a folder; None if it does not exist, or if a link leads out of the folder."""
    if not folder.is_local:
        path = folder / name
        return path if path.exists() and not path.is_folder() else None
    try:
        root = folder.local_path.resolve(strict=True)
        file = (root / name).resolve(strict=True)
        return StoragePath(str(file)) if file.is_relative_to(root) and file.is_file() else None
    except (OSError, ValueError, RuntimeError):
        return None
