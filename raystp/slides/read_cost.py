"""What reading tiles of a slide takes, from opening it; no tile is read."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from raystp.errors import SlideError
from raystp.slides.open import open_header
from raystp.slides.tiled.byte_source import coalesce
from raystp.slides.tiled.slide import TiledSlide
from raystp.storage import StoragePath
from raystp.units import TilePixels


@dataclass(frozen=True)
class ReadCost:
    """What reading boxes of a slide takes."""

    bytes: int
    """Of the boxes; of an object with the gaps between stored tiles that share a request."""
    requests: int
    """Of a slide in an object store, for the boxes."""
    opening_bytes: int
    """What opening the slide read: its header, and a stored tile of each level."""
    opening_requests: int
    """Of a slide in an object store, to open it."""
    overview_bytes: int
    """What finding the tissue reads, about."""


def read_cost(
    name: str,
    path: StoragePath,
    boxes: Float64[np.ndarray, "tile 3"],
    tile_px: TilePixels,
    *,
    mpp: float,
    file_bytes: int,
) -> ReadCost:
    """Open a slide, and return what opening it took and what reading the boxes would take.

    A file without stored tiles of its own reader is read whole, or its share under the boxes with OpenSlide. What
    opening a local file read is known on Linux alone; elsewhere it counts as nothing.

    Raises:
        SlideError: the slide cannot be opened, or has to be downloaded.
        StorageError: the object cannot be read.
    """
    before = _read_by_this_thread()
    opened = open_header(name, path, given_mpp=mpp)
    if opened is None:
        msg = f"slide {name!r} ({path}) has to be downloaded to be read"
        raise SlideError(msg)
    with opened as slide:
        opening, opening_requests = _read_by_this_thread() - before, 0
        if isinstance(slide, TiledSlide):
            if not path.is_local:
                opening, opening_requests = slide.fetched()
            offsets, counts = slide.stored_ranges(boxes, tile_px)
            spans = coalesce(offsets, counts)
            read = sum(counts) if path.is_local else sum(span.count for span in spans)
            return ReadCost(read, len(spans), opening, opening_requests, slide.overview_bytes())
        covered = float((boxes[:, 2] ** 2).sum()) / (slide.width * slide.height) if slide.reader == "openslide" else 1.0
        overview = file_bytes if slide.reader in ("flat", "patches") else 0
        return ReadCost(int(min(covered, 1.0) * file_bytes), 1, opening, opening_requests, overview)


def _read_by_this_thread() -> int:
    """Return the bytes that this thread has read from files so far; 0 where the system does not count them."""
    with contextlib.suppress(OSError, ValueError):
        text = Path("/proc/thread-self/io").read_text(encoding="utf-8")
        return int(text.partition("rchar: ")[2].partition("\n")[0])
    return 0
