"""Open a slide by its stored tiles: supported tiled TIFFs only, and only if OpenSlide reports the same pyramid.

Both functions return None for any other file or object. Of an object only the header and one tile of each level are
fetched. OpenSlide cannot open it, so its pyramid follows from the header by OpenSlide's own rules.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import openslide

from raystp.slides.readers.headers import checked_tiff, kind_of_bytes
from raystp.slides.tiled.byte_source import ByteSource, LocalSource
from raystp.slides.tiled.decoders import has_expected_colours
from raystp.slides.tiled.levels import Pyramid, find_pyramid
from raystp.slides.tiled.remote_source import HeaderFile, RemoteSource
from raystp.storage import StoragePath


@dataclass(frozen=True)
class TiledFile:
    """An open tiled TIFF: its pyramid and its bytes."""

    pyramid: Pyramid
    source: ByteSource


def read_pyramid(where: str, path: Path) -> Pyramid | None:
    """Return the pyramid of a TIFF on this machine, None if it is not supported exactly.

    Raises:
        SlideError: the header is damaged; no decoder may open such a file.
    """
    with checked_tiff(where, path) as pages:
        return find_pyramid(pages)


def open_file(where: str, path: Path, pyramid: Pyramid, handle: openslide.OpenSlide) -> TiledFile | None:
    """Open a file by its tiles if OpenSlide's handle has the same vendor and level sizes."""
    sizes = tuple((level.width, level.height) for level in pyramid.levels)
    if handle.properties.get(openslide.PROPERTY_NAME_VENDOR) != pyramid.vendor or handle.level_dimensions != sizes:
        return None
    return _open(LocalSource(where, path), lambda _: pyramid)


def open_object(where: str, path: StoragePath) -> TiledFile | None:
    """Open an object by its tiles; return None if it is not a tiled TIFF that is supported exactly.

    Raises:
        SlideError: the TIFF's header is damaged.
        StorageError: the object cannot be read.
    """

    def read(source: ByteSource) -> Pyramid | None:
        file = HeaderFile(source)
        if kind_of_bytes(file.read(8)) != "tiff":
            return None
        file.seek(0)
        with checked_tiff(where, file) as pages:
            return find_pyramid(pages)

    return _open(RemoteSource(where, path), read)


def _open(source: ByteSource, read: Callable[[ByteSource], Pyramid | None]) -> TiledFile | None:
    """Return a source with its pyramid; close it if there is none."""
    with contextlib.ExitStack() as stack:
        stack.callback(source.close)
        pyramid = read(source)
        if pyramid is None or not _matches_header(pyramid, source):
            return None
        stack.pop_all()
        return TiledFile(pyramid, source)


def _matches_header(pyramid: Pyramid, source: ByteSource) -> bool:
    """Return whether the first stored tile of each level has the colour space of its header."""
    levels = [level for level in pyramid.levels if level.counts.any()]
    first = [int(level.counts.argmax() if level.counts[0] == 0 else 0) for level in levels]
    ranges = [(int(level.offsets[tile]), int(level.counts[tile])) for level, tile in zip(levels, first, strict=True)]
    contents = source.fetch(*zip(*ranges, strict=True)) if ranges else []
    return all(has_expected_colours(level, content) for level, content in zip(levels, contents, strict=True))
