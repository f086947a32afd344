"""The image of a slide on which its tissue is detected: the scanned part, at a fixed um/px.

A piece of tissue looks the same on a scan of 5 mm and on one of 55 mm, so it is found on both. A slide with bounds
(MRXS, SCN) is a scan of a small part of the glass: only that part is read.
"""

import math

import numpy as np
from jaxtyping import UInt8

from raystp.errors import SlideError
from raystp.slides.coordinates import Area
from raystp.slides.open import Slide
from raystp.slides.readers.opened import DAMAGED_PX, MAX_DAMAGED_REGIONS, MAX_DAMAGED_SHARE, DamagedRegion
from raystp.slides.readers.resample import BLOCK_SIDE, WHITE
from raystp.units import Level0Pixels, TilePixels

SEARCH_MPP = 16.0
"""The um/px of the image: a piece of 0.3 mm is 19 px wide, and a glass of 25 x 55 mm has 5.4 Mpx."""

SEARCH_PX = 1024, 4096
"""Least and most px along the longer side. A scan below 16 mm is seen finer; one above 65 mm coarser."""

BLOCK_PX = 512
"""Most px along one axis of a block in which a part of a slide is read."""


def whole_area(slide: Slide) -> Area:
    """Return the whole slide as an area."""
    return Area(0, 0, slide.width, slide.height)


def scanned_area(slide: Slide) -> Area:
    """Return the slide's bounds, or the whole slide where it has none."""
    return whole_area(slide) if slide.bounds is None else Area(*slide.bounds)


def tissue_image(slide: Slide, area: Area) -> UInt8[np.ndarray, "row col 3"]:
    """Return the image of an area on which to detect tissue; see `SEARCH_MPP` and `SEARCH_PX`."""
    longest_um = max(area.width, area.height) * float(slide.mpp)
    longest = min(max(math.ceil(longest_um / SEARCH_MPP), SEARCH_PX[0]), SEARCH_PX[1])
    return slide.thumbnail(longest) if area == whole_area(slide) else _read_area(slide, area, longest)


def um_per_px(slide: Slide, area: Area, image: UInt8[np.ndarray, "row col 3"]) -> float:
    """Return the um/px of an image of an area."""
    return float(slide.mpp) * max(area.width, area.height) / float(max(image.shape))


def _read_area(slide: Slide, area: Area, longest: int) -> UInt8[np.ndarray, "row col 3"]:
    """Read an area in square blocks, each from the coarsest level that has its pixels."""
    scale = max(1.0, max(area.width, area.height) / longest)
    columns, rows = (max(1, round(length / scale)) for length in (area.width, area.height))
    step = min(BLOCK_PX, max(1, int(BLOCK_SIDE / scale)))
    image = np.full((rows, columns, 3), WHITE, np.uint8)
    damaged: list[DamagedRegion] = []
    for top in range(0, rows, step):
        for left in range(0, columns, step):
            corner = area.x + left * scale, area.y + top * scale
            block = _read_block(slide, corner, step, scale, damaged=damaged)
            image[top : top + step, left : left + step] = block[: rows - top, : columns - left]
    if sum(region.width * region.height for region in damaged) > MAX_DAMAGED_SHARE * area.width * area.height:
        raise SlideError(damaged[0].reason)
    slide.damaged = damaged
    return image


def _read_block(
    slide: Slide, corner: tuple[float, float], side_px: int, scale: float, *, damaged: list[DamagedRegion]
) -> UInt8[np.ndarray, "row col 3"]:
    """Read a square block, white where a part of `DAMAGED_PX` or less cannot be read; such parts join `damaged`."""
    (x, y), side = corner, side_px * scale
    try:
        return slide.read(Level0Pixels(x), Level0Pixels(y), Level0Pixels(side), TilePixels(side_px))
    except SlideError as error:
        if len(damaged) >= MAX_DAMAGED_REGIONS:
            raise
        block = np.full((side_px, side_px, 3), WHITE, np.uint8)
        if side_px <= DAMAGED_PX or side_px % 2:
            damaged.append(DamagedRegion(round(x), round(y), round(side), round(side), str(error)))
            return block
    half = side_px // 2
    for top in (0, half):
        for left in (0, half):
            part = _read_block(slide, (x + left * scale, y + top * scale), half, scale, damaged=damaged)
            block[top : top + half, left : left + half] = part
    return block
