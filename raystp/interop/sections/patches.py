"""HEST's `patches/<id>.h5`: images of spots in one file, which hest-bench embeds instead of slides.

| dataset | type | content |
|---|---|---|
| `img` | uint8 (N, px, px, 3), one image a chunk | RGB |
| `coords` | int64 (N, 2) | top-left corner, in px of the slide's full resolution |
| `barcode` | text (N, 1) | name of the spot |

Attributes of `img`: `patch_size_src` (side in px of the slide), `patch_size_target` (px of an image), `downsample`
(their ratio), `pixel_size` (um/px of the slide) and `name`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float64, Int64, UInt8

from raystp.errors import FormatError, some
from raystp.storage import StoragePath

WHOLE_PX = 0.5
"""Farthest that a corner moves when it is rounded to whole px."""


@dataclass(frozen=True)
class PatchGeometry:
    """Where the images of a slide's spots are."""

    slide: str
    corners: Float64[np.ndarray, "tile 2"]
    """Top-left corner (x, y), in level-0 px."""
    side: float
    """In level-0 px."""
    tile_px: int
    mpp: float
    """um/px of the slide."""
    names: tuple[str, ...]
    """Spot of each tile; its place where it has none."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """What the images are of, as plain JSON values: the attribute `raystp`, which other tools do not read."""


@dataclass(frozen=True)
class PatchBatch:
    """Images of some of the tiles, in rising order over all batches."""

    rows: Int64[np.ndarray, "tile"]
    images: UInt8[np.ndarray, "tile px px 3"]


def write(patches: PatchGeometry, batches: Iterable[PatchBatch], folder: StoragePath) -> Sequence[str]:
    """Write `patches/<slide>.h5`; equal images give equal bytes. Tiles that no batch has are left out.

    Corners are rounded to whole px, halves down. Returns a sentence on what was moved or left out. Raises FormatError
    for spots of one name, and where there is no image at all.
    """
    if len(set(patches.names)) < len(patches.names):
        twice = sorted({name for name in patches.names if patches.names.count(name) > 1})
        msg = (
            f"slide {patches.slide!r}: several tiles are named {some(twice)}; images are joined by name: tile it again"
        )
        raise FormatError(msg)
    corners = np.ceil(patches.corners - WHOLE_PX).astype(np.int64)
    written: list[int] = []

    def write_file(local: Path) -> None:
        with h5py.File(local, "w", libver=("earliest", "v110")) as file:
            shape = (len(corners), patches.tile_px, patches.tile_px, 3)
            chunks = (1, *shape[1:])
            images = file.create_dataset(
                "img", shape, np.uint8, chunks=chunks, maxshape=(None, *shape[1:]), track_times=False
            )
            for batch in batches:
                images[len(written) : len(written) + len(batch.rows)] = batch.images
                written.extend(batch.rows.tolist())
            images.resize(len(written), axis=0)
            images.attrs.update(_attributes(patches))
            file.create_dataset("coords", data=corners[written], track_times=False)
            names = np.asarray([patches.names[row] for row in written], dtype=object)[:, None]
            file.create_dataset("barcode", data=names, dtype=h5py.string_dtype(), track_times=False)
            file.attrs["raystp"] = json.dumps(patches.source, sort_keys=True)
        if not written:
            msg = f"slide {patches.slide!r} has no tile that can be read: no patches are written"
            raise FormatError(msg)

    (folder / "patches" / f"{patches.slide}.h5").write_file(write_file)
    return _notes(patches, corners, written)


def _attributes(patches: PatchGeometry) -> dict[str, Any]:
    side = int(patches.side) if float(patches.side).is_integer() else patches.side
    return {
        "patch_size_src": side,
        "patch_size_target": patches.tile_px,
        "downsample": patches.side / patches.tile_px,
        "pixel_size": patches.mpp,
        "name": patches.slide,
    }


def _notes(patches: PatchGeometry, corners: Int64[np.ndarray, "tile 2"], written: Sequence[int]) -> list[str]:
    moved = np.abs(corners - patches.corners).max(axis=1)[list(written)]
    notes = []
    if count := int((moved > 0).sum()):
        farthest = f"moved by at most {moved.max():.2g} px"
        notes.append(f"{count:,} of {len(written):,} corners were not whole px; {farthest}")
    if absent := len(patches.corners) - len(written):
        notes.append(f"{absent:,} of {len(patches.corners):,} tiles cannot be read and have no image")
    return notes
