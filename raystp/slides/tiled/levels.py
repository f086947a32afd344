"""The levels of a tiled TIFF: which directories are one slide's pyramid, and how their tiles are stored.

`find_pyramid` takes checked directories (`headers.checked_tiff`) and returns a `Pyramid`, or None for any file that is
not supported exactly; OpenSlide reads those. Supported are Aperio files and plain tiled TIFFs of 8-bit RGB, with the
same levels and um/px as OpenSlide gives. A tile without bytes is white.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tifffile
from jaxtyping import Int64
from tifffile import COMPRESSION, PHOTOMETRIC, RESUNIT

_PLAIN = (COMPRESSION.NONE, COMPRESSION.LZW, COMPRESSION.ADOBE_DEFLATE, COMPRESSION.DEFLATE)
_JPEG_2000 = (COMPRESSION.APERIO_JP2000_RGB,)

_PLAIN_RGB_TAGS = {
    "BitsPerSample": (8, (8, 8, 8)),
    "SamplesPerPixel": (3,),
    "PlanarConfiguration": (1,),
    "Orientation": (1,),
    "FillOrder": (1,),
    "ImageDepth": (1,),
    "TileDepth": (1,),
    "SampleFormat": (1, (1, 1, 1)),
    "ExtraSamples": ((),),
}
"""Tag values of plain RGB in pixel order; an absent tag means the same."""

MAX_STORED_RATIO = 4
"""Stored bytes per decoded byte of a tile, at most (plus 64 KiB); more means a damaged byte count."""

_UNIT_UM = {RESUNIT.INCH: 25_400.0, RESUNIT.CENTIMETER: 10_000.0}


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


def find_pyramid(pages: Sequence[tifffile.TiffPage]) -> Pyramid | None:
    """Return the pyramid in a TIFF's directories, or None if it is not supported exactly."""
    if not pages or not pages[0].is_tiled:
        return None
    first = pages[0]
    if first.description.startswith("Aperio"):
        vendor, mpp = "aperio", _aperio_mpp(first.description)
        images = [page for page in pages if page.is_tiled]
    elif _is_other_vendor(first):
        return None
    else:
        vendor, mpp = "generic-tiff", _resolution_mpp(first)
        reduced = [page for page in pages[1:] if page.is_tiled and "NewSubfileType" in page.tags and page.is_reduced]
        images = sorted([first, *reduced], key=lambda page: -page.imagewidth)
    if not all(_is_supported(page) for page in images):
        return None
    levels = [_level(number, page, images[0]) for number, page in enumerate(images)]
    if vendor == "aperio" and len(levels) > 1 and any(level.counts.min() == 0 for level in levels):
        return None  # OpenSlide fills such tiles, and those above them, from the finer levels
    return Pyramid(vendor, levels, mpp)


def _level(number: int, page: tifffile.TiffPage, finest: tifffile.TiffPage) -> Level:
    across, down = math.ceil(page.imagewidth / page.tilewidth), math.ceil(page.imagelength / page.tilelength)
    tables = b"" if page.jpegtables is None else bytes(page.jpegtables)
    if tables and not (tables.startswith(b"\xff\xd8") and tables.endswith(b"\xff\xd9")):
        msg = f"the JPEG tables of image {page.index} are damaged"
        raise ValueError(msg)
    if max(page.databytecounts) > MAX_STORED_RATIO * page.tilewidth * page.tilelength * 3 + (1 << 16):
        msg = f"image {page.index} has a tile of {max(page.databytecounts)} bytes"
        raise ValueError(msg)
    ratios = finest.imagewidth / page.imagewidth, finest.imagelength / page.imagelength
    return Level(
        number=number,
        width=page.imagewidth,
        height=page.imagelength,
        tile_width=page.tilewidth,
        tile_height=page.tilelength,
        across=across,
        offsets=np.array(page.dataoffsets[: across * down], np.int64),
        counts=np.array(page.databytecounts[: across * down], np.int64),
        downsample=sum(ratios) / 2.0 if number else 1.0,
        compression=int(page.compression),
        photometric=int(page.photometric),
        predictor=int(page.predictor),
        tables=tables,
    )


def _is_supported(page: tifffile.TiffPage) -> bool:
    """Return whether a directory's tiles decode to the same pixels as in OpenSlide."""
    if page.bitspersample != 8 or page.samplesperpixel != 3:  # noqa: PLR2004 -- bits, colours
        return False
    for name, values in _PLAIN_RGB_TAGS.items():
        if name in page.tags and page.tags[name].value not in values:
            return False
    if page.compression == COMPRESSION.JPEG:
        return page.photometric in (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR) and page.predictor == 1
    if page.photometric != PHOTOMETRIC.RGB:
        return False
    if page.compression in _JPEG_2000:
        return page.predictor == 1
    return page.compression in _PLAIN and page.predictor in (1, 2)


def _is_other_vendor(first: tifffile.TiffPage) -> bool:
    """Return whether a file may be from a scanner with its own rules for levels."""
    if first.description.lstrip().startswith("<") or "XMP" in first.tags:  # Leica, Philips, OME; Ventana
        return True
    return first.software.startswith("MedScan")  # Trestle


def _aperio_mpp(description: str) -> tuple[float, float] | None:
    """Return the um/px in Aperio's description, `...|AppMag = 20|MPP = 0.4990|...`; the last one if there are two."""
    fields = [field.partition("=") for field in description.split("|")[1:]]
    values = [value.strip() for name, equals, value in fields if equals and name.strip() == "MPP"]
    try:
        mpp = float(values[-1].replace(",", "."))
    except (IndexError, ValueError):
        return None
    return mpp, mpp


def _resolution_mpp(first: tifffile.TiffPage) -> tuple[float, float] | None:
    """Return the um/px from a TIFF's resolution tags, as OpenSlide computes it."""
    values = [first.tags[name].value for name in ("XResolution", "YResolution") if name in first.tags]
    unit = first.tags["ResolutionUnit"].value if "ResolutionUnit" in first.tags else RESUNIT.INCH
    if len(values) < 2 or unit not in _UNIT_UM or not all(above and below for above, below in values):  # noqa: PLR2004 -- axes
        return None
    across, down = (_UNIT_UM[unit] * below / above for above, below in values)
    return across, down
