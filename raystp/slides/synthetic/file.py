"""A synthetic slide as a file: an Aperio pyramid that OpenSlide opens, and the same file with damaged tiles."""

from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import UInt8

from raystp.errors import SlideError
from raystp.units import MicronsPerPixel, is_plausible

TILE = 256
REDUCTION = 4
"""Each of the three levels is this much smaller than the one before: 1, 4, 16, as Aperio's scanners write them."""
QUALITY = 85
GARBAGE = b"\xa5"
"""Not the start of a JPEG stream (0xFF 0xD8), nor a marker inside one."""


def write_slide(path: Path, image: UInt8[np.ndarray, "row col 3"], *, mpp: MicronsPerPixel) -> None:
    """Write an RGB image as a pyramidal, tiled JPEG TIFF with Aperio's description; an existing file is replaced.

    Equal images give equal bytes. Pixels beyond the last whole block of 4 are left out of the smaller levels.

    Raises:
        SlideError: the um/px is no microscope's, or the image is too small for three levels.
    """
    height, width = image.shape[:2]
    if not is_plausible(mpp):
        msg = f"{path} cannot be written: {mpp} um/px is no scan's resolution, 0.25 or 0.5 would be"
        raise SlideError(msg)
    if min(height, width) < REDUCTION**2:
        msg = f"{path} cannot be written: {width} x {height} px is too small for three levels, 16 x 16 would do"
        raise SlideError(msg)
    magnification = f"{10.0 / mpp:g}"
    description = f"Aperio synthetic\n{width}x{height} JPEG/RGB Q={QUALITY}|AppMag = {magnification}|MPP = {mpp:g}"
    level = image
    with tifffile.TiffWriter(path) as writer:
        for number in range(3):
            writer.write(
                level,
                tile=(TILE, TILE),
                compression="jpeg",
                compressionargs={"level": QUALITY},
                photometric="rgb",  # with "ycbcr" tifffile labels RGB data so that readers show false colours
                subsampling=(2, 2),
                subfiletype=int(number > 0),
                resolution=(1e4 / (mpp * REDUCTION**number),) * 2,
                resolutionunit="CENTIMETER",
                description=description,
                metadata=None,
            )
            level = _reduce(level)


def damage(path: Path) -> None:
    """Overwrite the fuller half of the level-0 tiles, where the tissue is, so that reading there fails.

    The file still opens, and a thumbnail, which OpenSlide takes from the smallest level, is still whole. Glass
    compresses to almost nothing, so the tiles whose compressed size is at least the median hold the tissue.

    Raises:
        SlideError: the file is no tiled TIFF.
    """
    try:
        with tifffile.TiffFile(path) as file:
            first = file.pages.first
            tiled, offsets, counts = first.is_tiled, first.dataoffsets, first.databytecounts
    except (tifffile.TiffFileError, OSError) as error:
        msg = f"{path} cannot be damaged: it cannot be read as a TIFF ({error}); give a file of write_slide"
        raise SlideError(msg) from None
    if not tiled:
        msg = f"{path} cannot be damaged: its first image is not tiled; give a file of write_slide"
        raise SlideError(msg)
    middle = float(np.median(counts))
    with path.open("r+b") as stream:
        for offset, count in zip(offsets, counts, strict=True):
            if count >= middle:
                stream.seek(offset)
                stream.write(GARBAGE * count)


def _reduce(level: UInt8[np.ndarray, "row col 3"]) -> UInt8[np.ndarray, "reduced_row reduced_col 3"]:
    """Return the mean over blocks of `REDUCTION` by `REDUCTION` pixels."""
    rows, cols = max(1, level.shape[0] // REDUCTION), max(1, level.shape[1] // REDUCTION)
    total = np.zeros((rows, cols, 3), np.uint16)
    for down in range(REDUCTION):
        for right in range(REDUCTION):
            total += level[down : rows * REDUCTION : REDUCTION, right : cols * REDUCTION : REDUCTION]
    return ((total + REDUCTION**2 // 2) // REDUCTION**2).astype(np.uint8)
