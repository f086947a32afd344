"""The slide of the embedding benchmark: an Aperio-like pyramid of 256 px JPEG tiles, large enough for many tiles.

A region of 2048 px is drawn once and its compressed tiles are repeated, so a slide of 50,000 tiles is written in
seconds. The tiles are a grid of 224 px over the whole slide, in the order of `raystp tile`.
"""

import csv
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from jaxtyping import Int64, UInt8

from raystp.artifacts import Artifact
from raystp.slides.synthetic.slide import draw_slide, draw_stain, tissue_map
from raystp.steps.tile import step as tile
from raystp.units import MicronsPerPixel

DRAWN, STORED, LEVELS, REDUCTION = 2048, 256, 3, 4
MPP, SIDE = 0.5, 224

Image = UInt8[np.ndarray, "row col 3"]


def make_slide(path: Path, tiles: int, *, levels: int = LEVELS) -> None:
    """Write a slide with room for at least this many tiles of `SIDE` px."""
    rng = np.random.default_rng(0)
    mpp = MicronsPerPixel(MPP)
    tissues = tissue_map(rng, width=DRAWN, height=DRAWN, mpp=mpp, cell=64)
    level: Image = draw_slide(rng, tissues, cell=64, mpp=mpp, stain=draw_stain(rng))
    side = math.ceil(math.sqrt(tiles)) * SIDE
    with tifffile.TiffWriter(path) as writer:
        for number in range(levels):
            _write_level(writer, level, side=side // REDUCTION**number, whole=side, scratch=path.with_suffix(".part"))
            level = level[::REDUCTION, ::REDUCTION]


def _write_level(writer: tifffile.TiffWriter, drawn: Image, *, side: int, whole: int, scratch: Path) -> None:
    """Write a level by repeating the compressed tiles of the drawn region."""
    times = max(1, STORED // len(drawn))
    options: dict[str, Any] = {
        "tile": (STORED, STORED),
        "photometric": "rgb",
        "compression": "jpeg",
        "subsampling": (2, 2),
    }
    drawn = np.tile(drawn, (times, times, 1))
    tifffile.imwrite(scratch, drawn, compressionargs={"level": 80}, metadata=None, **options)
    content = scratch.read_bytes()
    with tifffile.TiffFile(scratch) as tiff:
        page = tiff.pages.first
        stored = [content[o : o + n] for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
    scratch.unlink()
    across, count = len(drawn) // STORED, math.ceil(side / STORED)
    writer.write(
        (stored[row % across * across + col % across] for row, col in itertools.product(range(count), repeat=2)),
        shape=(side, side, 3),
        dtype=np.uint8,
        subfiletype=int(side < whole),
        description=f"Aperio drawn\n{whole}x{whole}|AppMag = 20|MPP = {MPP}",
        metadata=None,
        **options,
    )


def run_tile(
    slide: Path, store: Path, *, sides: Sequence[float] = (MPP * SIDE,), stride: float | None = None
) -> Artifact:
    """Run `tile` on the whole slide, with and without tissue; the sides and the stride are in um."""
    table = slide.with_suffix(".csv")
    with table.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("slide", "path", "patient", "mpp"), (slide.stem, slide.name, "p", MPP)])
    config = tile.CONFIG.of(
        {
            "slides": str(table),
            "tile_um": list(sides),
            "stride": stride,
            "tile_px": SIDE,
            "min_tissue": 0.0,
            "focus_tiles": 0,
            "run": {"store": str(store)},
        }
    )
    return tile.run(config)


def tile_corners(tiles: Artifact, slide: str) -> Int64[np.ndarray, "tile 2"]:
    """Return the upper left corners of the tiles in level-0 px, in the order of their table."""
    table = (tiles.path / "tiles" / f"{slide}.parquet").read_table(["x", "y"])
    return np.stack([table[axis].to_numpy() for axis in ("x", "y")], axis=1).astype(np.int64)
