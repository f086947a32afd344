"""File kinds from first bytes, and checks of TIFF directories, in Python before any C decoder opens the file.

A damaged header can make a C library abort the process (a tile side of 65,520). It can also give blank tiles without an
error (fewer tiles than the image size needs). Tiles of zero bytes are allowed: Philips and some Aperio scanners store
empty glass like that.
"""

import contextlib
import io
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import tifffile

from raystp.errors import SlideError

MAX_TILE_SIDE = 4096
"""Stored tiles are 64 to 2048 px wide in practice; a larger value means a damaged header."""

MAX_PAGES = 256
"""Directories that are read; a slide has up to about 20."""

MAX_SUBIFDS = 32
"""SubIFDs that are read of a directory; a pyramid has up to about 10."""

TIFF_ERRORS = (
    OSError,
    ValueError,
    LookupError,
    RuntimeError,
    TypeError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    MemoryError,
    EOFError,
    struct.error,
)
"""Exceptions that tifffile and imagecodecs raise on damaged files."""

_WHOLE_NUMBERS = (
    "imagewidth",
    "imagelength",
    "imagedepth",
    "tilewidth",
    "tilelength",
    "rowsperstrip",
    "bitspersample",
    "samplesperpixel",
    "planarconfig",
    "photometric",
    "compression",
    "predictor",
    "subfiletype",
)
"""Fields of a directory whose value is one number, whatever a damaged header says."""

_COPY_AGAIN = "copy the file again from its source"

_MAGIC = {
    b"\xff\xd8\xff": "jpeg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"\x89HDF\r\n\x1a\n": "hdf5",
    b"II*\x00": "tiff",
    b"MM\x00*": "tiff",
    b"II+\x00": "tiff",
    b"MM\x00+": "tiff",
}


def file_kind(where: str, path: Path) -> str:
    """Return the kind of a file from its first bytes (see `kind_of_bytes`); raise SlideError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return kind_of_bytes(file.read(8))
    except OSError as error:
        msg = f"{where} cannot be opened: {error.strerror}"
        raise SlideError(msg) from None


def kind_of_bytes(head: bytes) -> str:
    """Return the kind of a file with these first 8 bytes: `jpeg`, `png`, `tiff`, `hdf5` or `other`."""
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "other")


@contextlib.contextmanager
def checked_tiff(where: str, file: Path | io.RawIOBase) -> Iterator[list[tifffile.TiffPage]]:
    """Open a TIFF and give its directories after checking them; give an empty list for an NDPI.

    Raises:
        SlideError: the directories are not possible for this file, or the caller fails to read them.
    """
    try:
        with np.errstate(over="ignore"), tifffile.TiffFile(cast("Path | BinaryIO", file)) as tiff:
            pages = directories(tiff)
            subs = [sub for page in pages for sub in sub_directories(page)]
            faults = ((page.index, _fault(page, tiff.filehandle.size)) for page in (*pages, *subs))
            found = next(((index, fault) for index, fault in faults if fault), None)
            if found is not None:
                msg = f"{where} has a damaged TIFF header: image {found[0]} {found[1]}; {_COPY_AGAIN}"
                raise SlideError(msg)
            if pages and pages[0].is_tiled and not _has_last_directory(tiff):
                msg = (
                    f"{where} has a damaged TIFF header: its list of {len(tiff.pages)} images does not end; "
                    f"{_COPY_AGAIN}"
                )
                raise SlideError(msg)
            yield pages
    except TIFF_ERRORS as error:
        reason = str(error).partition("\n")[0]
        msg = f"{where} has a damaged TIFF header: {type(error).__name__}: {reason}"
        raise SlideError(msg) from None


def directories(tiff: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """Return the directories of a TIFF, none of an NDPI: its levels are in Hamamatsu's own tags."""
    count = 0 if tiff.is_ndpi else min(len(tiff.pages), MAX_PAGES)
    return [page for i in range(count) if isinstance(page := tiff.pages.get(i, aspage=True), tifffile.TiffPage)]


def sub_directories(page: tifffile.TiffPage) -> list[tifffile.TiffPage]:
    """Return the SubIFDs of a directory, in which OME-TIFF stores the coarser levels."""
    found = page.pages
    if found is None:
        return []
    subs = (found.get(number, aspage=True) for number in range(min(len(found), MAX_SUBIFDS)))
    return [sub for sub in subs if isinstance(sub, tifffile.TiffPage)]


def _has_last_directory(tiff: tifffile.TiffFile) -> bool:
    """Return whether the last directory found is marked as the last."""
    tiff.filehandle.seek(tiff.pages.next_page_offset or 0)
    return not any(tiff.filehandle.read(tiff.tiff.offsetsize))


def _fault(page: tifffile.TiffPage, size: int) -> str | None:
    """Return what is wrong with one directory of a file of `size` bytes, or None."""
    odd = next((name for name in _WHOLE_NUMBERS if not isinstance(getattr(page, name), int)), None)
    if odd is not None:
        return f"has {str(getattr(page, odd))[:40]!r} for its {odd}, which is a whole number"
    if min(page.imagewidth, page.imagelength) < 1:
        return f"is {page.imagewidth} x {page.imagelength} px, allowed is 1 or more"
    parts = _tile_fault(page) if page.is_tiled else _strip_fault(page)
    if parts is not None:
        return parts
    if len(page.dataoffsets) != len(page.databytecounts):
        return f"has {len(page.dataoffsets)} offsets for {len(page.databytecounts)} byte counts"
    least = min((*page.dataoffsets, *page.databytecounts), default=0)
    if least < 0:
        return f"has an offset or a byte count of {least}, which is below 0"
    end = max((o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True) if n), default=0)
    return f"reaches to byte {end} of a file of {size} bytes: the file was cut off" if end > size else None


def _tile_fault(page: tifffile.TiffPage) -> str | None:
    """Return why a directory's tiles cannot have their size or number, or None."""
    if max(page.tilewidth, page.tilelength) > MAX_TILE_SIDE or min(page.tilewidth, page.tilelength) < 1:
        return f"has tiles of {page.tilewidth} x {page.tilelength} px, allowed are 1 to {MAX_TILE_SIDE}"
    across, down = math.ceil(page.imagewidth / page.tilewidth), math.ceil(page.imagelength / page.tilelength)
    is_separate = page.samplesperpixel > 1 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
    needed = across * down * (page.samplesperpixel if is_separate else 1)
    if len(page.dataoffsets) >= needed:
        return None
    return f"is {page.imagewidth} x {page.imagelength} px in {len(page.dataoffsets)} tiles, not {needed}"


def _strip_fault(page: tifffile.TiffPage) -> str | None:
    """Return why a directory's strips cannot cover it, or None."""
    if page.rowsperstrip >= 1 and len(page.dataoffsets) >= math.ceil(page.imagelength / page.rowsperstrip):
        return None
    return f"has {page.imagelength} rows in {len(page.dataoffsets)} strips of {page.rowsperstrip} rows"
