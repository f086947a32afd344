"""Open a TIFF by its stored tiles, if they are supported exactly.

`read_header` reads what all readers need of a TIFF. The tiles of an Aperio file are read only if OpenSlide reports the
same pyramid; other scanners' files are left to OpenSlide. Of an object only the header and one tile of each level are
fetched. OpenSlide cannot open it, so its pyramid follows from the header alone.
"""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openslide
from jaxtyping import Float64

from raystp.errors import SlideError
from raystp.slides.readers.checks import SlideFacts
from raystp.slides.readers.headers import checked_tiff, kind_of_bytes
from raystp.slides.readers.tiff.facts import empty_tiles, facts_of_tiff
from raystp.slides.readers.tiff.picture import choose_picture, is_label_or_macro
from raystp.slides.tiled.byte_source import ByteSource, LocalSource
from raystp.slides.tiled.decoders.tiles import has_expected_colours
from raystp.slides.tiled.levels import Level, Pyramid, find_pyramid, is_other_vendor, plain_pyramid
from raystp.slides.tiled.remote_source import HeaderFile, RemoteSource
from raystp.storage import StoragePath

PROBED_TILES = 16
"""Stored tiles of a level that are searched for one whose stream is not damaged."""


@dataclass(frozen=True)
class TiffHeader:
    """What a TIFF's directories state, read once."""

    facts: SlideFacts
    sizes: tuple[tuple[int, int], ...]
    """Width and height of each level, the finest first."""
    is_tiled: bool
    planes: int
    """Directories that one level is stored in: 3 for separate planes of an OME-TIFF."""
    is_other_vendor: bool
    """Whether a scanner's own rules may count, which OpenSlide knows."""
    pyramid: Pyramid | None
    """The levels by their stored tiles; None if they are not supported exactly."""
    empty: Float64[np.ndarray, "region 4"]
    """Regions (x, y, width, height) of level 0 that are stored without bytes."""


@dataclass(frozen=True)
class TiledFile:
    """An open tiled TIFF: its pyramid and its bytes."""

    pyramid: Pyramid
    source: ByteSource


def read_header(where: str, file: Path | io.RawIOBase) -> TiffHeader | None:
    """Return what a TIFF's directories state; None for an NDPI, whose directories are Hamamatsu's own.

    Raises:
        SlideError: the header is damaged, and no decoder may open such a file; or labels are its only pictures.
    """
    with checked_tiff(where, file) as pages:
        if not pages:
            return None
        if all(is_label_or_macro(page) for page in pages):
            msg = (
                f"{where} has only a label or a macro image, which may have the patient's name: it was not read; "
                "export the slide again with its scan"
            )
            raise SlideError(msg)
        picture = choose_picture(pages)
        is_other = is_other_vendor(pages[0])
        return TiffHeader(
            facts=facts_of_tiff(picture),
            sizes=tuple((level[0].imagewidth, level[0].imagelength) for level in picture.levels),
            is_tiled=picture.first.is_tiled,
            planes=len(picture.levels[0]),
            is_other_vendor=is_other,
            pyramid=plain_pyramid(picture) if is_other else find_pyramid(pages, picture),
            empty=empty_tiles(picture.first),
        )


def is_pyramid_of(handle: openslide.OpenSlide, pyramid: Pyramid) -> bool:
    """Return whether OpenSlide's handle has the vendor and the level sizes of a pyramid."""
    sizes = tuple((level.width, level.height) for level in pyramid.levels)
    return handle.properties.get(openslide.PROPERTY_NAME_VENDOR) == pyramid.vendor and handle.level_dimensions == sizes


def open_file(where: str, path: Path, pyramid: Pyramid) -> TiledFile | None:
    """Open a file by its tiles; None if their streams contradict its header."""
    return _with_tiles(LocalSource(where, path), pyramid)


def open_object(where: str, path: StoragePath) -> tuple[TiffHeader, TiledFile | None] | None:
    """Return an object's TIFF header, and its tiles if they are supported; None if it is no plain or Aperio TIFF.

    Raises:
        SlideError: the TIFF's header is damaged.
        StorageError: the object cannot be read.
    """
    source = RemoteSource(where, path)
    with contextlib.ExitStack() as stack:
        stack.callback(source.close)
        file = HeaderFile(source)
        if kind_of_bytes(file.read(8)) != "tiff":
            return None
        file.seek(0)
        header = read_header(where, file)
        if header is None or header.is_other_vendor:
            return None
        stack.pop_all()
        return header, None if header.pyramid is None else _with_tiles(source, header.pyramid)


def _with_tiles(source: ByteSource, pyramid: Pyramid) -> TiledFile | None:
    """Return a source with its pyramid; close it and return None if the tiles contradict the header."""
    with contextlib.ExitStack() as stack:
        stack.callback(source.close)
        if not all(_matches_header(level, source) for level in pyramid.levels):
            return None
        stack.pop_all()
        return TiledFile(pyramid, source)


def _matches_header(level: Level, source: ByteSource) -> bool:
    """Return whether the first stored tile that is not damaged has the colour space of the level's header."""
    if level.green_blue:
        return True  # grey streams, which are checked when they are decoded
    tiles = np.flatnonzero(level.counts)[:PROBED_TILES]
    for tile in tiles.tolist():
        (content,) = source.fetch([int(level.offsets[tile])], [int(level.counts[tile])])
        found = has_expected_colours(level, content)
        if found is not None:
            return found
    return not len(tiles)
