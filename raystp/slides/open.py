"""Open a slide, and read tiles of it.

A supported tiled TIFF is read by its stored tiles; from an object store only the needed ones are fetched. Other files
are read by OpenSlide, as a flat image (JPEG, PNG, plain TIFF), or as image patches (HDF5); `choose_reader` decides. For
these an object is first copied to local disk, where processes of a node may share it. Coordinates are stored pixels of
level 0: x is the column, y the row. Orientation tags are not applied.
"""

import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, UInt8

from raystp.errors import SlideError, some
from raystp.slides.choose_reader import Opening, open_local, open_remote
from raystp.slides.coordinates import TileGeometry, boxes_around
from raystp.slides.readers.opened import DamagedRegion
from raystp.slides.readers.resample import WHITE
from raystp.slides.readers.scale import ScaleSources
from raystp.slides.tiled.read_ahead import cancelling_pool
from raystp.slides.tiled.slide import TiledSlide, tile_error
from raystp.storage import StoragePath
from raystp.storage.node_cache import NodeCache
from raystp.units import Level0Pixels, Microns, MicronsPerPixel, TilePixels

MULTI_FILE_SUFFIXES = (".mrxs", ".dcm", ".vms", ".vmu")
"""Formats of several files. A download copies one of them, and one DICOM level would look like a whole slide."""

MAX_LISTED = 10_000
"""Entries of a folder that are looked at for an error message."""


@runtime_checkable
class Slide(Protocol):
    """An open slide of any format."""

    name: str
    width: int
    """Columns of level 0."""
    height: int
    """Rows of level 0."""
    mpp: MicronsPerPixel
    mpp_from: str
    """Source of the um/px: `table`, `slide` or `spots`."""
    own_mpp: float | None
    """The slide's own um/px, whatever the source of `mpp`; None if it gives none, or an implausible one."""
    bounds: tuple[int, int, int, int] | None
    """The scanned part (x, y, width, height) in level-0 px, white around it; None if the slide does not give one."""
    warnings: list[str]
    """What is doubtful in the file, a sentence each, without the slide's name."""
    empty: Float64[np.ndarray, "region 4"]
    """Stored tiles (x, y, width, height) of level 0 without bytes, which are white: glass, or a fault amid tissue."""
    damaged: list[DamagedRegion]
    """What the last call of `thumbnail` could not decode."""
    reader: str
    """Which reader is used: `tiled`, `openslide`, `flat` or `patches`."""
    vendor: str
    """The format: OpenSlide's name of a scanner's format, `generic-tiff`, or the kind of a flat image (`jpeg`)."""

    def read(
        self, x: Level0Pixels, y: Level0Pixels, side: Level0Pixels, tile_px: TilePixels
    ) -> UInt8[np.ndarray, "pixel pixel 3"]:
        """Return the tile with top-left corner (x, y) and `side` level-0 px as `tile_px` x `tile_px`, antialiased.

        If `side` equals `tile_px` and x, y are whole, these are the stored pixels. Outside the slide it is white.

        Raises:
            SlideError: the pixels cannot be read; the message names the slide and the coordinates.
        """
        ...

    def thumbnail(self, longest: int) -> UInt8[np.ndarray, "row col 3"]:
        """Return the whole slide with `longest` (at least 1) px along its longer side, never enlarged.

        Single stored tiles that cannot be decoded are white; `damaged` lists them.

        Raises:
            SlideError: most of what the thumbnail needs cannot be read.
        """
        ...

    def close(self) -> None:
        """Release files and memory; later reads raise SlideError."""
        ...

    def __enter__(self) -> "Slide": ...

    def __exit__(self, *_: object) -> None: ...


def open_slide(
    name: str,
    path: StoragePath,
    *,
    given_mpp: float | None = None,
    derived_mpp: float | None = None,
    cache: NodeCache | None = None,
) -> Slide:
    """Open a slide by its id and its path.

    Its um/px is `given_mpp` (from the slide table), else the slide's own, else `derived_mpp` (from the spots' pitch).
    A TIFF's own um/px is that of its OME-XML, of ImageJ's unit, or of its resolution tags; an implausible tag of an
    untiled TIFF, and the dpi tag of a PNG or JPEG, are ignored. An object that has to be downloaded goes to `cache`, or
    without one to a temporary copy.

    Raises:
        SlideError: the file is not a slide, is damaged, or has no plausible um/px.
        StorageError: the object cannot be read.
    """
    with contextlib.ExitStack() as stack:
        opening = _opening(name, path, ScaleSources(given=given_mpp, derived=derived_mpp), stack)
        tiled = None if path.is_local else open_remote(opening, path)
        if tiled is not None:
            return tiled
        local = stack.enter_context(path.local() if cache is None else cache.fetch(path))
        return open_local(opening, local)


def open_header(
    name: str, path: StoragePath, *, given_mpp: float | None = None, derived_mpp: float | None = None
) -> Slide | None:
    """Open a slide as `open_slide` does if its header can be read by ranges; None for an object to be downloaded."""
    if path.is_local:
        return open_slide(name, path, given_mpp=given_mpp, derived_mpp=derived_mpp)
    with contextlib.ExitStack() as stack:
        return open_remote(_opening(name, path, ScaleSources(given=given_mpp, derived=derived_mpp), stack), path)


def _opening(name: str, path: StoragePath, sources: ScaleSources, stack: contextlib.ExitStack) -> Opening:
    """Return what the readers get. Raises SlideError for a path that no reader takes."""
    where = f"slide {name!r} ({path})"
    if not path.is_local and path.name.lower().endswith(MULTI_FILE_SUFFIXES):
        msg = f"{where} has a format of several files, which is read from local disk only; copy it to this machine"
        raise SlideError(msg)
    if path.is_local and Path(path.uri).is_dir():
        raise _folder_error(where, Path(path.uri))
    return Opening(name, where, sources, stack)


def _folder_error(where: str, folder: Path) -> SlideError:
    """Return the error for a folder that is given as a slide, with a file in it that may be meant."""
    beside = folder.with_name(f"{folder.name}.mrxs")
    if beside.is_file():
        return SlideError(f"{where} is a folder with the data of a MIRAX slide; name the file {beside.name} beside it")
    files = sorted(file for file in itertools.islice(folder.iterdir(), MAX_LISTED) if file.is_file())
    images = [file for file in files if _is_dicom(file)]
    if images:
        return SlideError(
            f"{where} is a folder of DICOM files; name one file of it, such as {images[0].name}: "
            "the others of the same slide are found beside it"
        )
    shown = f", which has {some([file.name for file in files], 3)}" if files else ", which has no files"
    return SlideError(f"{where} is a folder{shown}; name one slide file in the column `path` of the slide table")


def _is_dicom(file: Path) -> bool:
    if file.suffix.lower() == ".dcm":
        return True
    with contextlib.suppress(OSError), file.open("rb") as opened:
        return opened.read(132)[128:] == b"DICM"
    return False


def read_tiles(
    slide: Slide,
    boxes: Float64[np.ndarray, "tile 3"],
    tile_px: TilePixels,
    *,
    threads: int = 1,
    into: UInt8[np.ndarray, "... 3"] | None = None,
) -> UInt8[np.ndarray, "tile pixel pixel 3"]:
    """Read boxes (x, y, side) in level-0 px as `tile_px` x `tile_px` each, in the order given for any `threads`.

    The tiles are written to `into` if it is given: reused memory is up to a fifth faster than new memory.

    Raises:
        SlideError: a tile cannot be read; the message has the number and the box of the first one.
    """
    tiles = _tile_memory(boxes, tile_px, into)
    if isinstance(slide, TiledSlide):
        slide.read_boxes(boxes, tiles, threads=threads)
        return tiles

    def fill(tile: int, box: list[float]) -> None:
        x, y, side = box
        try:
            tiles[tile] = slide.read(Level0Pixels(x), Level0Pixels(y), Level0Pixels(side), tile_px)
        except SlideError as error:
            raise tile_error(slide.name, tile, box, error) from error

    _for_each(fill, boxes, threads)
    return tiles


def read_tiles_or_fail(
    slide: Slide,
    boxes: Float64[np.ndarray, "tile 3"],
    tile_px: TilePixels,
    *,
    threads: int = 1,
    into: UInt8[np.ndarray, "... 3"] | None = None,
) -> tuple[UInt8[np.ndarray, "tile pixel pixel 3"], dict[int, str]]:
    """Read all tiles that can be read; return the pixels, and the number of each other tile with its reason.

    Like `read_tiles`, but one damaged stored tile costs only the tiles over it. Failed tiles are white. The reason
    has the box and the slide, as the message of `read_tiles` has.

    Raises:
        SlideError: the slide is closed, was replaced while it was read, or was cut off.
        StorageError: the store cannot be read.
    """
    tiles = _tile_memory(boxes, tile_px, into)
    failed: dict[int, str] = {}
    if isinstance(slide, TiledSlide):
        failed = slide.read_boxes_or_fail(boxes, tiles, threads=threads)
    else:

        def fill(tile: int, box: list[float]) -> None:
            x, y, side = box
            try:
                tiles[tile] = slide.read(Level0Pixels(x), Level0Pixels(y), Level0Pixels(side), tile_px)
            except SlideError as error:
                failed[tile] = str(tile_error(slide.name, tile, box, error))

        _for_each(fill, boxes, threads)
    tiles[list(failed)] = WHITE
    return tiles, dict(sorted(failed.items()))


def _tile_memory(
    boxes: Float64[np.ndarray, "tile 3"], tile_px: TilePixels, into: UInt8[np.ndarray, "... 3"] | None
) -> UInt8[np.ndarray, "tile pixel pixel 3"]:
    tiles = np.empty((len(boxes), tile_px, tile_px, 3), np.uint8) if into is None else into
    if tiles.shape != (len(boxes), tile_px, tile_px, 3):
        msg = f"{len(boxes)} tiles of {tile_px} x {tile_px} px do not fit an array of shape {tiles.shape}"
        raise SlideError(msg)
    return tiles


def _for_each(fill: Callable[[int, list[float]], None], boxes: Float64[np.ndarray, "tile 3"], threads: int) -> None:
    """Call `fill` for the number and the box of each tile; stop at the first exception."""
    rows = boxes.tolist()
    if threads <= 1:
        for tile, box in enumerate(rows):
            fill(tile, box)
        return
    with cancelling_pool(threads) as pool:
        for _ in pool.map(fill, range(len(rows)), rows):
            pass


def prefetch_tiles(slide: Slide, boxes: Float64[np.ndarray, "tile 3"], tile_px: TilePixels) -> None:
    """Start to fetch the bytes of the tiles that are read next, if the slide is in an object store."""
    if isinstance(slide, TiledSlide):
        slide.prefetch(boxes, tile_px)


def read_around(
    slide: Slide, x: Level0Pixels, y: Level0Pixels, *, tile_um: Microns, tile_px: TilePixels
) -> UInt8[np.ndarray, "pixel pixel 3"]:
    """Read the tile of `tile_um` um around (x, y) in level-0 px, at tile_um / tile_px um/px.

    If the scan is within `NATIVE_TOLERANCE` of that um/px, these are `tile_px` stored pixels from a whole corner.
    """
    ((left, top, side),) = boxes_around(np.array([[x, y]]), TileGeometry(tile_um, tile_px, slide.mpp)).tolist()
    return slide.read(Level0Pixels(left), Level0Pixels(top), Level0Pixels(side), tile_px)
