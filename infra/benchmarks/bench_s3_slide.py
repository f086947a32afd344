"""The slide that reading from an object store is measured on: 256 px JPEG tiles, a pyramid, tissue on part of it.

The stored tiles of a drawn section are repeated within a few ellipses; elsewhere lies glass, with a scanner's noise.
None is encoded twice. The tiles that are wanted are those of a 224 px grid whose centre lies on tissue.
"""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from jaxtyping import Bool, Float64, UInt8

from raystp.slides.synthetic.slide import draw_slide, draw_stain, tissue_map
from raystp.units import MicronsPerPixel

DRAWN, STORED, LEVELS, REDUCTION = 2048, 256, 3, 4
MPP, SIDE = 0.5, 224
ELLIPSES = ((0.30, 0.30, 0.22, 0.14), (0.68, 0.36, 0.13, 0.20), (0.45, 0.74, 0.26, 0.10))
"""Centre (x, y) and half axes, as parts of the slide's side; together a quarter of it."""
NOISE = 3.0
"""Standard deviation of a scanner's empty field, of 255."""

Image = UInt8[np.ndarray, "row col 3"]
OPTIONS: dict[str, Any] = {"tile": (STORED, STORED), "photometric": "rgb", "compression": "jpeg", "subsampling": (2, 2)}


def on_tissue(x: Float64[np.ndarray, " place"], y: Float64[np.ndarray, " place"]) -> Bool[np.ndarray, " place"]:
    """Say which places, as parts of the slide's side, lie on tissue."""
    inside = np.zeros(len(x), np.bool_)
    for left, top, wide, high in ELLIPSES:
        inside |= ((x - left) / wide) ** 2 + ((y - top) / high) ** 2 <= 1
    return inside


def make_slide(path: Path, side: int) -> None:
    """Write a slide of side x side px."""
    rng, mpp = np.random.default_rng(0), MicronsPerPixel(MPP)
    tissues = tissue_map(rng, width=DRAWN, height=DRAWN, mpp=mpp, cell=64)
    tissue: Image = draw_slide(rng, tissues, cell=64, mpp=mpp, stain=draw_stain(rng))
    glass = np.clip(rng.normal(240, NOISE, (DRAWN, DRAWN, 3)), 0, 255).astype(np.uint8)
    with tifffile.TiffWriter(path) as writer:
        for number in range(LEVELS):
            kinds = [_stored(image, path.with_suffix(".part")) for image in (glass, tissue)]
            _write_level(writer, kinds, side=side // REDUCTION**number, whole=side)
            tissue, glass = tissue[::REDUCTION, ::REDUCTION], glass[::REDUCTION, ::REDUCTION]


def _stored(drawn: Image, scratch: Path) -> list[bytes]:
    """Return an image's stored tiles."""
    times = max(1, STORED // len(drawn))
    tifffile.imwrite(
        scratch, np.tile(drawn, (times, times, 1)), compressionargs={"level": 80}, metadata=None, **OPTIONS
    )
    content = scratch.read_bytes()
    with tifffile.TiffFile(scratch) as tiff:
        page = tiff.pages.first
        found = [content[o : o + n] for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
    scratch.unlink()
    return found


def _write_level(writer: tifffile.TiffWriter, kinds: list[list[bytes]], *, side: int, whole: int) -> None:
    count, across = math.ceil(side / STORED), math.isqrt(len(kinds[0]))
    rows, columns = (grid.ravel() for grid in np.mgrid[:count, :count])
    # A tile is tissue where any of it is: its corners and its centre are asked.
    held = np.zeros(count * count, np.bool_)
    for right, down in ((0, 0), (1, 0), (0, 1), (1, 1), (0.5, 0.5)):
        held |= on_tissue((columns + right) * STORED / side, (rows + down) * STORED / side)
    places = zip(held.tolist(), itertools.product(range(count), repeat=2), strict=True)
    writer.write(
        (kinds[is_tissue][row % across * across + column % across] for is_tissue, (row, column) in places),
        shape=(side, side, 3),
        dtype=np.uint8,
        subfiletype=int(side < whole),
        description=f"Aperio drawn\n{whole}x{whole}|AppMag = 20|MPP = {MPP}",
        metadata=None,
        **OPTIONS,
    )


def squares(side: int) -> Float64[np.ndarray, "tile 3"]:
    """Return the tiles (x, y, side) on tissue, row by row, as a tiles table has them."""
    y, x = (grid.ravel() * float(SIDE) for grid in np.mgrid[: side // SIDE, : side // SIDE])
    kept = on_tissue((x + SIDE / 2) / side, (y + SIDE / 2) / side)
    found: Float64[np.ndarray, "tile 3"] = np.stack([x, y, np.full(len(x), float(SIDE))], axis=1)[kept]
    return found


def needed(path: Path, places: Float64[np.ndarray, "tile 3"]) -> tuple[int, int]:
    """Return how many stored tiles of level 0 lie under the squares, and their bytes."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        counts, across = page.databytecounts, math.ceil(page.imagewidth / STORED)
    first = (places[:, :2] // STORED).astype(int)
    last = ((places[:, :2] + SIDE - 1) // STORED).astype(int)
    under = {
        row * across + column
        for (left, top), (right, bottom) in zip(first.tolist(), last.tolist(), strict=True)
        for row, column in itertools.product(range(top, bottom + 1), range(left, right + 1))
    }
    return len(under), sum(counts[tile] for tile in under)
