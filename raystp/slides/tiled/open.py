"""Which slides are read by their stored tiles: tiled TIFFs that are known exactly, and that OpenSlide sees so too.

In goes a file or an object, out come its pyramid and where its bytes come from; None for anything else. Of an object
the header alone is fetched, and one tile of each level: OpenSlide cannot look at it, so what it would see follows from
the header by its own rules.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import openslide

from raystp.slides.readers.headers import checked_tiff, kind_of
from raystp.slides.tiled.decoders import has_colours
from raystp.slides.tiled.levels import Pyramid, pyramid
from raystp.slides.tiled.remote import BlockFile, RemoteSource
from raystp.slides.tiled.sources import ByteSource, LocalSource
from raystp.storage import StoragePath


@dataclass(frozen=True)
class Tiled:
    """A tiled TIFF that is known exactly, open."""

    pyramid: Pyramid
    source: ByteSource


def header(where: str, path: Path) -> Pyramid | None:
    """Return the pyramid of a TIFF on this machine, None where it is not known exactly.

    Raises SlideError for a header that cannot be true: no decoder is to see such a file.
    """
    with checked_tiff(where, path) as pages:
        return pyramid(pages)


def tiled_file(where: str, path: Path, seen: Pyramid, handle: openslide.OpenSlide) -> Tiled | None:
    """Open a file by its tiles, if OpenSlide's handle says the same of it."""
    sizes = tuple((level.width, level.height) for level in seen.levels)
    if handle.properties.get(openslide.PROPERTY_NAME_VENDOR) != seen.vendor or handle.level_dimensions != sizes:
        return None
    return _tiled(LocalSource(where, path), lambda _: seen)


def tiled_object(where: str, place: StoragePath) -> Tiled | None:
    """Open an object by its tiles; None where it is no tiled TIFF, or one that is not known exactly.

    Raises SlideError for a TIFF's header that cannot be true, StorageError where the object cannot be read.
    """

    def look(source: ByteSource) -> Pyramid | None:
        file = BlockFile(source)
        if kind_of(file.read(8)) != "tiff":
            return None
        file.seek(0)
        with checked_tiff(where, file) as pages:
            return pyramid(pages)

    return _tiled(RemoteSource(where, place), look)


def _tiled(source: ByteSource, look: Callable[[ByteSource], Pyramid | None]) -> Tiled | None:
    """Return what is seen in a source with it, or close it."""
    with contextlib.ExitStack() as stack:
        stack.callback(source.close)
        seen = look(source)
        if seen is None or not _is_as_said(seen, source):
            return None
        stack.pop_all()
        return Tiled(seen, source)


def _is_as_said(seen: Pyramid, source: ByteSource) -> bool:
    """Say whether the first tile of each level has the colours that its header says."""
    levels = [level for level in seen.levels if level.counts.any()]
    first = [int(level.counts.argmax() if level.counts[0] == 0 else 0) for level in levels]
    places = [(int(level.offsets[tile]), int(level.counts[tile])) for level, tile in zip(levels, first, strict=True)]
    contents = source.fetch(*zip(*places, strict=True)) if places else []
    return all(has_colours(level, content) for level, content in zip(levels, contents, strict=True))
