"""Write a synthetic slide as an Aperio pyramid that OpenSlide opens, and damage such a file on purpose."""

from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import UInt8

from raystp.errors import SlideError
from raystp.units import MicronsPerPixel, is_plausible

TILE = 256
REDUCTION = 4
"""Factor between the three levels, as Aperio scanners write them: 1, 4, 16."""
QUALITY = 85
GARBAGE = b"\xa5"
"""Not the start of a JPEG stream (0xFF 0xD8), nor a marker inside one."""


def write_slide(path: Path, image: UInt8[np.ndarray, "row col 3"], *, mpp: MicronsPerPixel) -> None:
    """Write an RGB image as a pyramidal, tiled JPEG TIFF with Aperio's description; replace an existing file.

    Equal images give equal bytes. The smaller levels omit pixels beyond the last whole block of 4.

    Raises:
        SlideError: the um/px is implausible, or the image is too small for three levels.
    """
    height, width = image.shape[:2]
    if not is_plausible(mpp):
        msg = f"{path} cannot be written: {mpp} um/px is implausible; use the um/px of a scan, such as 0.25 or 0.5"
        raise SlideError(msg)
    if min(height, width) < REDUCTION**2:
        msg = f"{path} cannot be written: {width} x {height} px is too small for three levels; the minimum is 16 x 16"
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
    """Overwrite the larger half of the level-0 tiles, so that reading the tissue fails.

    The file still opens, and its thumbnail, which OpenSlide reads from the smallest level, is unchanged. Glass
    compresses to almost nothing, so tiles of at least the median compressed size contain the tissue.

    Raises:
        SlideError: the file is not a tiled TIFF.
    """
    try:
        with tifffile.TiffFile(path) as file:
            first = file.pages.first
            tiled, offsets, counts = first.is_tiled, first.dataoffsets, first.databytecounts
    except (tifffile.TiffFileError, OSError) as error:
        msg = f"{path} cannot be damaged: it is not readable as TIFF ({error}); use a file of write_slide"
        raise SlideError(msg) from None
    if not tiled:
        msg = f"{path} cannot be damaged: its first image is not tiled; use a file of write_slide"
        raise SlideError(msg)
    median = float(np.median(counts))
    with path.open("r+b") as stream:
        for offset, count in zip(offsets, counts, strict=True):
            if count >= median:
                stream.seek(offset)
                stream.write(GARBAGE * count)


def _reduce(level: UInt8[np.ndarray, "row col 3"]) -> UInt8[np.ndarray, "reduced_row reduced_col 3"]:
    """Return the mean of blocks of `REDUCTION` x `REDUCTION` pixels."""
    rows, cols = max(1, level.shape[0] // REDUCTION), max(1, level.shape[1] // REDUCTION)
    total = np.zeros((rows, cols, 3), np.uint16)
    for down in range(REDUCTION):
        for right in range(REDUCTION):
            total += level[down : rows * REDUCTION : REDUCTION, right : cols * REDUCTION : REDUCTION]
    return ((total + REDUCTION**2 // 2) // REDUCTION**2).astype(np.uint8)
