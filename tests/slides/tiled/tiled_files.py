"""Tiled TIFFs of each supported kind, written from one image, and the same files as OpenSlide reads them."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from jaxtyping import UInt8

from raystp.slides.readers.opened import SlideContext
from raystp.slides.readers.openslide_reader import OpenSlideSlide, open_handle
from raystp.slides.readers.scale import SlideScale
from raystp.units import MicronsPerPixel

Rgb = UInt8[np.ndarray, "row col 3"]

APERIO = "Aperio Image Library v11.2.1\n{0}x{1} JPEG/RGB|AppMag = 20|MPP = 0.4990"
KINDS = ("ycbcr420", "ycbcr422", "rgb", "aperio", "aperio_rgb", "deflate", "deflate_predictor", "lzw", "raw", "jp2k")


def oracle(path: Path) -> OpenSlideSlide:
    """Return the slide as OpenSlide reads it."""
    with contextlib.ExitStack() as stack:
        handle = open_handle("the oracle", path)
        assert handle is not None
        stack.enter_context(handle)
        scale = SlideScale(MicronsPerPixel(0.5), "table")
        return OpenSlideSlide(handle, path, SlideContext("A1", "the oracle", scale, stack.pop_all()))


def sample_image(width: int, height: int) -> Rgb:
    """Return an image with edges and with colours that differ everywhere, so that a misplaced pixel shows."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    fine = np.repeat(np.repeat(coarse, 8, axis=0), 8, axis=1)[:height, :width]
    row, column = np.mgrid[0:height, 0:width]
    unique = np.stack([column % 97, row % 89, (row + column) % 83], axis=2).astype(np.uint8)
    return np.asarray(fine // 2 + unique, np.uint8)


def write(path: Path, image: Rgb, kind: str, *, side: int, levels: int = 3) -> Path:
    """Write an image as a tiled TIFF of a kind; each level is half as wide and high as the one before."""
    with tifffile.TiffWriter(path) as tiff:
        for number in range(levels):
            level = np.ascontiguousarray(image[:: 2**number, :: 2**number])
            description = APERIO.format(*image.shape[1::-1]) if kind.startswith(("aperio", "jp2k")) else None
            common: dict[str, Any] = {
                "tile": (side, side),
                "subfiletype": 1 if number else 0,
                "metadata": None,
                "photometric": "rgb",
            }
            common |= {"resolution": (20_000.0 / 2**number,) * 2, "resolutionunit": "centimeter"}
            if kind in ("aperio_rgb", "jp2k"):
                encode = rgb_stream if kind == "aperio_rgb" else j2k_stream
                tables, tiles = shared_tables(encode(tile) for tile in cut(level, side))
                compression = "jpeg" if kind == "aperio_rgb" else 33005
                more = {"jpegtables": tables} if tables else {}
                common |= {"shape": level.shape, "dtype": np.uint8, "compression": compression, **more}
                tiff.write(iter(tiles), description=description, **common)
            else:
                tiff.write(level, description=description, **common, **CODECS[kind])
    if kind == "aperio_rgb":
        as_rgb(path)
    return path


CODECS: dict[str, dict[str, Any]] = {
    "ycbcr420": {"compression": "jpeg", "compressionargs": {"level": 85}, "subsampling": (2, 2)},
    "ycbcr422": {"compression": "jpeg", "compressionargs": {"level": 85}, "subsampling": (2, 1)},
    "aperio": {"compression": "jpeg", "compressionargs": {"level": 85}, "subsampling": (2, 2)},
    "rgb": {"compression": "jpeg", "compressionargs": {"level": 85, "outcolorspace": "rgb"}},
    "deflate": {"compression": "adobe_deflate"},
    "deflate_predictor": {"compression": "adobe_deflate", "predictor": True},
    "lzw": {"compression": "lzw"},
    "raw": {},
}


def cut(level: Rgb, side: int) -> Iterator[Rgb]:
    """Yield a level's tiles, row by row; beyond the edge they are grey."""
    height, width = level.shape[:2]
    for top, left in itertools.product(range(0, height, side), range(0, width, side)):
        tile = np.full((side, side, 3), 128, np.uint8)
        part = level[top : top + side, left : left + side]
        tile[: part.shape[0], : part.shape[1]] = part
        yield tile


def rgb_stream(tile: Rgb) -> bytes:
    """Encode a tile as JPEG without a change of colours."""
    return bytes(imagecodecs.jpeg8_encode(tile, level=85, colorspace="rgb", outcolorspace="rgb", subsampling="444"))


def j2k_stream(tile: Rgb) -> bytes:
    """Encode a tile as a lossless JPEG 2000 codestream without a change of colours."""
    return bytes(imagecodecs.jpeg2k_encode(tile, codecformat="j2k", level=0, mct=False, reversible=True))


def shared_tables(streams: Iterator[bytes]) -> tuple[bytes, list[bytes]]:
    """Move JPEG tables out of the streams, and remove the colour markers, as Aperio does."""
    tables, tiles = b"", []
    for stream in streams:
        if not stream.startswith(b"\xff\xd8"):
            tiles.append(stream)
            continue
        kept: list[bytes] = []
        moved: list[bytes] = []
        at = 2
        while stream[at + 1] != 0xDA:
            length = 2 + int.from_bytes(stream[at + 2 : at + 4])
            kind, segment = stream[at + 1], stream[at : at + length]
            (moved if kind in (0xDB, 0xC4) else kept).append(b"" if 0xE0 <= kind <= 0xEF else segment)
            at += length
        tables = b"\xff\xd8" + b"".join(moved) + b"\xff\xd9"
        tiles.append(b"\xff\xd8" + b"".join(kept) + stream[at:])
    return tables, tiles


def as_rgb(path: Path) -> None:
    """Mark the JPEG tiles as RGB, which tifffile never does."""
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for page in tiff.pages:
            assert isinstance(page, tifffile.TiffPage)
            page.tags["PhotometricInterpretation"].overwrite(2)
