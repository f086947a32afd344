"""Opening a slide, and reading squares of it.

A tiled TIFF of a known make is read by its stored tiles; from an object store those are fetched that are needed. Of
anything else OpenSlide is asked first, and what it does not know is tried as a flat picture (JPEG, PNG, plain TIFF);
on an object store both are read from a local copy, which a node's processes may share. The frame is the stored pixels
of level 0: x is the column, y the row.
"""

import contextlib
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, UInt8

from raystp.errors import SlideError
from raystp.slides.places import TileGeometry, tiles_around
from raystp.slides.readers.decode import open_picture
from raystp.slides.readers.flat import FlatSlide
from raystp.slides.readers.headers import kind
from raystp.slides.readers.openslide_reader import OpenSlideSlide, open_handle, own_mpp
from raystp.slides.readers.scale import ScaleClaims, in_force
from raystp.slides.tiled.open import header, tiled_file, tiled_object
from raystp.slides.tiled.slide import TiledSlide, unreadable
from raystp.slides.tiled.threads import workers
from raystp.storage import StoragePath
from raystp.storage.node_cache import NodeCache
from raystp.units import Level0Pixels, Microns, MicronsPerPixel, TilePixels

MANY_FILES = (".mrxs", ".dcm", ".vms", ".vmu")
"""Formats of several files, of which a download would bring one: a DICOM level alone would pass for a whole slide."""


@runtime_checkable
class Slide(Protocol):
    """An open slide, whatever its format."""

    name: str
    width: int
    """Columns of level 0."""
    height: int
    """Rows of level 0."""
    mpp: MicronsPerPixel
    mpp_from: str
    """Whose word the um/px is: `table`, `slide` or `spots`."""
    reader: str
    """What reads it: `tiled`, `openslide` or `flat`."""

    def read(
        self, x: Level0Pixels, y: Level0Pixels, side: Level0Pixels, pixels: TilePixels
    ) -> UInt8[np.ndarray, "pixel pixel 3"]:
        """Return the square with top-left corner (x, y) and `side` level-0 px, as `pixels` x `pixels`, antialiased.

        Where `side` equals `pixels` and x, y are whole, these are the stored pixels. Outside the slide it is white.
        Raises SlideError that names the slide and the place.
        """
        ...

    def thumbnail(self, longest: int) -> UInt8[np.ndarray, "row col 3"]:
        """Return the whole slide with `longest` (at least 1) px along its longer side, never enlarged."""
        ...

    def close(self) -> None:
        """Give up what is held; reads fail from here on."""
        ...

    def __enter__(self) -> "Slide": ...

    def __exit__(self, *_: object) -> None: ...


def open_slide(
    name: str,
    place: StoragePath,
    *,
    given_mpp: float | None = None,
    derived_mpp: float | None = None,
    cache: NodeCache | None = None,
) -> Slide:
    """Open a slide by its id and its place.

    Its um/px is `given_mpp` (the slide table's), else the slide's own, else `derived_mpp` (from the spots' pitch). A
    picture's dpi tag is not asked, but OpenSlide takes a tiled TIFF's resolution for its um/px. An object that must be
    had whole is fetched to `cache`, or without one to a copy of its own.

    Raises SlideError for a file that is none, damaged, or without a plausible um/px; StorageError for a remote place.
    """
    where = f"slide {name!r} ({place})"
    if not place.is_local and place.name.lower().endswith(MANY_FILES):
        msg = (
            f"{where} belongs to a format of several files, which is read from this machine's disk only; copy it there"
        )
        raise SlideError(msg)
    claims = ScaleClaims(given=given_mpp, derived=derived_mpp)
    with contextlib.ExitStack() as stack:
        tiled = None if place.is_local else tiled_object(where, place)
        if tiled is not None:
            stack.callback(tiled.source.close)
            scale = in_force(where, ScaleClaims(given_mpp, tiled.pyramid.mpp, derived_mpp))
            return TiledSlide(name, tiled, where=where, scale=scale, keep=stack.pop_all())
        path = stack.enter_context(place.local() if cache is None else cache.fetch(place))
        return _open_path(name, path, where=where, claims=claims, stack=stack)


def _open_path(name: str, path: Path, *, where: str, claims: ScaleClaims, stack: contextlib.ExitStack) -> Slide:
    """Open a local file; what it holds open, and all of `stack`, passes to the slide."""
    what = kind(where, path)
    seen = header(where, path) if what == "tiff" else None
    handle = open_handle(where, path)
    if handle is not None:
        with contextlib.ExitStack() as held:
            held.enter_context(handle)
            scale = in_force(where, ScaleClaims(claims.given, own_mpp(where, handle), claims.derived))
            tiled = tiled_file(where, path, seen, handle) if seen is not None else None
            if tiled is None:
                stack.push(held.pop_all())
                return OpenSlideSlide(name, handle, where=where, scale=scale, keep=stack.pop_all())
        stack.callback(tiled.source.close)
        return TiledSlide(name, tiled, where=where, scale=scale, keep=stack.pop_all())
    picture = open_picture(where, path, what)
    if picture is None:
        msg = f"{where} is no slide: neither OpenSlide nor the readers of JPEG, PNG and TIFF know its format"
        raise SlideError(msg)
    return FlatSlide(name, picture, where=where, scale=in_force(where, claims), keep=stack.pop_all())


def read_tiles(
    slide: Slide,
    squares: Float64[np.ndarray, "tile 3"],
    pixels: TilePixels,
    *,
    threads: int = 1,
    into: UInt8[np.ndarray, "... 3"] | None = None,
) -> UInt8[np.ndarray, "tile pixel pixel 3"]:
    """Read squares (x, y, side) in level-0 px as `pixels` x `pixels` each, in the order given, whatever `threads` is.

    They are written to `into` where it is given: memory that was used before is up to a fifth faster than new memory.

    Raises SlideError naming the slide and the place of the first tile, in that order, that cannot be read.
    """
    tiles = np.empty((len(squares), pixels, pixels, 3), np.uint8) if into is None else into
    if tiles.shape != (len(squares), pixels, pixels, 3):
        msg = f"{len(squares)} tiles of {pixels} x {pixels} px do not go into an array of {tiles.shape}"
        raise SlideError(msg)
    if isinstance(slide, TiledSlide):
        slide.read_squares(squares, tiles, threads=threads)
        return tiles

    def fill(tile: int, square: list[float]) -> None:
        x, y, side = square
        try:
            tiles[tile] = slide.read(Level0Pixels(x), Level0Pixels(y), Level0Pixels(side), pixels)
        except SlideError as error:
            raise unreadable(slide.name, tile, square, error) from error

    places = squares.tolist()
    if threads <= 1:
        for tile, square in enumerate(places):
            fill(tile, square)
        return tiles
    with workers(threads) as pool:
        for _ in pool.map(fill, range(len(places)), places):
            pass
    return tiles


def expect_tiles(slide: Slide, squares: Float64[np.ndarray, "tile 3"], pixels: TilePixels) -> None:
    """Say which tiles will be read next: of a slide in an object store, their bytes are fetched meanwhile."""
    if isinstance(slide, TiledSlide):
        slide.expect(squares, pixels)


def read_microns(
    slide: Slide, x: Level0Pixels, y: Level0Pixels, *, side: Microns, pixels: TilePixels
) -> UInt8[np.ndarray, "pixel pixel 3"]:
    """Read the square of `side` um of tissue around (x, y) in level-0 px, at side / pixels um/px.

    Native pixels where the scan is within `NATIVE_TOLERANCE` of that: exactly `pixels` level-0 px from a whole corner.
    """
    ((left, top, length),) = tiles_around(np.array([[x, y]]), TileGeometry(side, pixels, slide.mpp)).tolist()
    return slide.read(Level0Pixels(left), Level0Pixels(top), Level0Pixels(length), pixels)
