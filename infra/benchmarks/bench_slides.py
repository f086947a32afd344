"""Slides of the benchmarks, written to a folder: two synthetic ones, and a real one if it is available.

`g256.tif` is a plain tiled TIFF (256 px tiles, JPEG 4:2:0, quality 80), `svs240.svs` has an Aperio header (240 px,
4:2:2). `real240.svs` holds the stored tiles of a real Aperio slide (240 px, RGB JPEG, shared tables), as they are,
repeated to a larger slide, without decoding and encoding them.
"""

import itertools
from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import UInt8

from raystp.slides.synthetic.slide import draw_slide, draw_stain, tissue_map
from raystp.units import MicronsPerPixel

WIDTH, HEIGHT = 8192, 6144
"""Of the synthetic slides, in px; an image of 2048 px is drawn and repeated."""

DRAWN = 2048
REAL_TILES = 36
REAL = Path(__file__).parents[2].parent / "shared" / "data" / "wsi" / "CMU-1-Small-Region.svs"
"""A public slide (OpenSlide's test data), beside the checkout."""


def make_slides(folder: Path) -> dict[str, Path]:
    """Write the slides; return their paths by name."""
    rng = np.random.default_rng(0)
    mpp = MicronsPerPixel(0.5)
    tissues = tissue_map(rng, width=DRAWN, height=DRAWN, mpp=mpp, cell=64)
    drawn = draw_slide(rng, tissues, cell=64, mpp=mpp, stain=draw_stain(rng))
    image = np.tile(drawn, (HEIGHT // DRAWN, WIDTH // DRAWN, 1))
    slides = {
        "g256": _write(folder / "g256.tif", image, side=256, subsampling=(2, 2), description=None),
        "svs240": _write(
            folder / "svs240.svs",
            image,
            side=240,
            subsampling=(2, 1),
            description=f"Aperio drawn\n{WIDTH}x{HEIGHT}|AppMag = 20|MPP = 0.5",
        ),
    }
    return slides | ({"real240": _repeat(REAL, folder / "real240.svs")} if REAL.exists() else {})


def _write(
    path: Path,
    image: UInt8[np.ndarray, "row col 3"],
    *,
    side: int,
    subsampling: tuple[int, int],
    description: str | None,
) -> Path:
    tifffile.imwrite(
        path,
        image,
        tile=(side, side),
        photometric="rgb",
        compression="jpeg",
        compressionargs={"level": 80},
        subsampling=subsampling,
        description=description,
        resolution=(20_000.0, 20_000.0),
        resolutionunit="centimeter",
        metadata=None,
    )
    return path


def _repeat(source: Path, path: Path) -> Path:
    """Write a slide from the stored tiles of another, without its incomplete tiles at the edges."""
    content = source.read_bytes()
    with tifffile.TiffFile(source) as tiff:
        page = tiff.pages.first
        side, across = page.tilewidth, -(-page.imagewidth // page.tilewidth)
        columns, rows = page.imagewidth // side, page.imagelength // side
        stored = [content[o : o + n] for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
        tables, description = page.jpegtables, page.description
    positions = itertools.product(range(REAL_TILES), repeat=2)
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            (stored[row % rows * across + column % columns] for row, column in positions),
            shape=(REAL_TILES * side, REAL_TILES * side, 3),
            dtype=np.uint8,
            tile=(side, side),
            photometric="rgb",
            compression="jpeg",
            jpegtables=tables,
            description=description,
            metadata=None,
        )
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages.first.tags["PhotometricInterpretation"].overwrite(2)  # RGB, as in the source; the writer sets YCbCr
    return path
