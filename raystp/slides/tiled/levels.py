"""The levels of a tiled TIFF: which directories are one slide's pyramid, and how their tiles are stored.

`find_pyramid` takes checked directories (`headers.checked_tiff`) and returns a `Pyramid`, or None for any file that is
not supported exactly; OpenSlide reads those. Supported are Aperio files, with the same levels and um/px as OpenSlide
gives, and plain tiled TIFFs of 8-bit RGB or grey, OME-TIFF included, whose picture `readers.tiff` chooses. Pixels are
in the frame in which they are stored. A tile without bytes is white.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tifffile
from jaxtyping import Int64
from tifffile import COMPRESSION, PHOTOMETRIC, PLANARCONFIG

from raystp.slides.readers.tiff.lengths import aperio_mpp
from raystp.slides.readers.tiff.ome import is_ome
from raystp.slides.readers.tiff.picture import RGB_PLANES, Directories, Picture, choose_picture
from raystp.slides.tiled.decoders.codecs import BYTE_CODECS, IMAGE_CODECS

_PLAIN_TAGS = {
    "FillOrder": (1,),
    "ImageDepth": (1,),
    "TileDepth": (1,),
    "SampleFormat": (1, (1, 1, 1)),
    "ExtraSamples": ((),),
}
"""Tag values of plain pixels; an absent tag means the same."""

MAX_STORED_RATIO = 4
"""Stored bytes per decoded byte of a tile, at most (plus 64 KiB); more means a damaged byte count."""

_GREY = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE)

StoredTiles = tuple[Int64[np.ndarray, " stored_tile"], Int64[np.ndarray, " stored_tile"]]
"""Offsets and byte counts."""


@dataclass(frozen=True, eq=False)
class Level:
    """One image of the pyramid: a grid of separately stored tiles."""

    number: int
    width: int
    height: int
    tile_width: int
    tile_height: int
    across: int
    """Tiles in a row."""
    offsets: Int64[np.ndarray, " stored_tile"]
    counts: Int64[np.ndarray, " stored_tile"]
    downsample: float
    """Level-0 pixels per pixel."""
    compression: int
    photometric: int
    predictor: int
    tables: bytes
    """JPEG tables that all tiles share; empty if each tile has its own."""
    samples: int = 3
    """Values a pixel in one stored tile: 3, or 1 for grey and for separately stored planes."""
    green_blue: tuple[StoredTiles, ...] = ()
    """The stored tiles of green and blue, if each plane is stored apart; `offsets` and `counts` are then red's."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of decoded tiles."""
        return self.across * self.tile_bytes

    @property
    def tile_bytes(self) -> int:
        """Bytes of one decoded tile."""
        return self.tile_width * self.tile_height * 3


@dataclass(frozen=True)
class Pyramid:
    """A slide's levels, the finest first."""

    vendor: str
    """OpenSlide's name of the format: `aperio` or `generic-tiff`."""
    levels: list[Level]
    mpp: tuple[float, float] | None
    """The file's own um/px along x and y; None if it does not give both."""


def find_pyramid(pages: Sequence[tifffile.TiffPage], picture: Picture | None = None) -> Pyramid | None:
    """Return the pyramid in a TIFF's directories, or None if it is not supported exactly.

    `picture` is the one of `choose_picture`, if it is known.
    """
    if not pages:
        return None
    picture = choose_picture(pages) if picture is None else picture
    first = pages[0]
    if first.description.startswith("Aperio") and first.is_tiled:
        return _pyramid([(page,) for page in pages if page.is_tiled], "aperio", aperio_mpp(first.description))
    return None if is_other_vendor(first) else plain_pyramid(picture)


def plain_pyramid(picture: Picture) -> Pyramid | None:
    """Return the pyramid of a TIFF of no scanner's own format, or None if it is not supported exactly."""
    return _pyramid(list(picture.levels), "generic-tiff", picture.mpp)


def _pyramid(images: list[Directories], vendor: str, mpp: tuple[float, float] | None) -> Pyramid | None:
    if not _is_supported(images[0]) or (vendor == "aperio" and not all(_is_supported(image) for image in images)):
        return None
    levels = [_level(number, image, images[0][0]) for number, image in enumerate(images) if _is_supported(image)]
    if vendor == "aperio" and len(levels) > 1 and any(level.counts.min() == 0 for level in levels):
        return None  # OpenSlide fills such tiles, and those above them, from the finer levels
    return Pyramid(vendor, levels, mpp)


def _level(number: int, planes: Directories, finest: tifffile.TiffPage) -> Level:
    page = planes[0]
    across, down = math.ceil(page.imagewidth / page.tilewidth), math.ceil(page.imagelength / page.tilelength)
    tables = b"" if page.jpegtables is None else bytes(page.jpegtables)
    if tables and not (tables.startswith(b"\xff\xd8") and tables.endswith(b"\xff\xd9")):
        msg = f"the JPEG tables of image {page.index} are damaged"
        raise ValueError(msg)
    largest = max(max(plane.databytecounts) for plane in planes)
    if largest > MAX_STORED_RATIO * page.tilewidth * page.tilelength * 3 + (1 << 16):
        msg = f"image {page.index} has a tile of {largest} bytes"
        raise ValueError(msg)
    ratios = finest.imagewidth / page.imagewidth, finest.imagelength / page.imagelength
    (offsets, counts), *green_blue = _stored_tiles(planes, across * down)
    return Level(
        number=number,
        width=page.imagewidth,
        height=page.imagelength,
        tile_width=page.tilewidth,
        tile_height=page.tilelength,
        across=across,
        offsets=offsets,
        counts=counts,
        downsample=sum(ratios) / 2.0 if number else 1.0,
        compression=int(page.compression),
        photometric=int(page.photometric),
        predictor=int(page.predictor),
        tables=tables,
        samples=RGB_PLANES if page.samplesperpixel == RGB_PLANES and not green_blue else 1,
        green_blue=tuple(green_blue),
    )


def _stored_tiles(planes: Directories, count: int) -> list[StoredTiles]:
    """Return the stored tiles of each plane: of one directory each, or one after another in a single directory."""
    if len(planes) == 1 and _is_separate(planes[0]):
        starts = [(planes[0], plane * count) for plane in range(RGB_PLANES)]
    else:
        starts = [(page, 0) for page in planes]
    return [
        (
            np.array(page.dataoffsets[start : start + count], np.int64),
            np.array(page.databytecounts[start : start + count], np.int64),
        )
        for page, start in starts
    ]


def _is_separate(page: tifffile.TiffPage) -> bool:
    return page.samplesperpixel > 1 and page.planarconfig == PLANARCONFIG.SEPARATE


def _is_supported(planes: Directories) -> bool:
    """Return whether the tiles of one level's directories can be decoded here."""
    page = planes[0]
    if not page.is_tiled or not _is_plain(page):
        return False
    if page.compression == COMPRESSION.JPEG:
        return not _is_separate(page) and page.photometric != PHOTOMETRIC.MINISWHITE and page.predictor == 1
    if page.photometric == PHOTOMETRIC.YCBCR:
        return False
    if page.compression in IMAGE_CODECS:
        return page.predictor == 1
    return page.compression in BYTE_CODECS and page.predictor in (1, 2)


def _is_plain(page: tifffile.TiffPage) -> bool:
    """Return whether a directory has 8-bit RGB, YCbCr or grey, and no other values."""
    bits = page.tags["BitsPerSample"].value if "BitsPerSample" in page.tags else 1
    if (set(bits) if isinstance(bits, tuple) else {bits}) != {8} or page.samplesperpixel not in (1, RGB_PLANES):
        return False
    if any(name in page.tags and page.tags[name].value not in values for name, values in _PLAIN_TAGS.items()):
        return False
    is_grey = page.samplesperpixel == 1
    return page.photometric in (_GREY if is_grey else (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR))


def is_other_vendor(first: tifffile.TiffPage) -> bool:
    """Return whether a file may be from a scanner with its own rules for levels."""
    description = first.description.lstrip()
    if is_ome(description):
        return False
    if description.startswith("<") or "XMP" in first.tags:  # Leica, Philips; Ventana
        return True
    return first.software.startswith("MedScan")  # Trestle
