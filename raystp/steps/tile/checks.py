"""Compare what is known twice about a slide: its um/px, its pixels and the tiles', its tissue and the tiles."""

import math
from dataclasses import dataclass

import numpy as np

from raystp.errors import SectionError
from raystp.slides.coordinates import TileGeometry, grid_boxes
from raystp.slides.open import Slide
from raystp.slides.tissue.masks import TissueMask
from raystp.slides.tissue.regions import share_under
from raystp.units import target_mpp

MPP_TOLERANCE = 0.03
"""Two sources of a slide's um/px may differ by this share."""

MAX_ENLARGED = 1.5
"""Tiles that are enlarged more than this many times from the scan's pixels get a warning."""

COLOURLESS = 8
"""An image without tissue is called grey if 99.9 % of its pixels have less than this between their colours."""


@dataclass(frozen=True)
class SectionScale:
    """The um/px of a slide's measured section."""

    mpp: float
    """As the step `spots` used it."""
    by_pitch: float | None
    """From the distance between neighbouring spots, where the layout has a known one."""


def check_scale(slide: Slide, section: SectionScale | None) -> list[str]:
    """Return a warning for each um/px that contradicts the slide table's, which decides.

    Raises:
        SectionError: the slide's own um/px contradicts that of its spots, and the table gives none.
    """
    known = {} if slide.own_mpp is None else {"its own file": slide.own_mpp}
    if section is not None:
        known["the measured section (`spots`)"] = section.mpp
        if section.by_pitch is not None and _differ(section.by_pitch, section.mpp):
            known["the distance between its spots"] = section.by_pitch
    used = float(slide.mpp)
    contradicting = {source: mpp for source, mpp in known.items() if _differ(used, mpp)}
    if not contradicting:
        return []
    named = " and ".join(f"{mpp:.4g} by {source}" for source, mpp in contradicting.items())
    if slide.mpp_from == "table":
        return [f"{used:.4g} um/px by the slide table is used, but it has {named}"]
    if slide.mpp_from == "spots":
        return [f"{used:.4g} um/px by the measured section is used, but it has {named}"]
    msg = (
        f"slide {slide.name!r} has {used:.4g} um/px by its own file, but {named}; they may differ by "
        f"{MPP_TOLERANCE:.0%}. The picture was scaled, its resolution tag is wrong, or the positions are in another "
        "picture's pixels. Set the right um/px in the column `mpp` of the slide table, which decides"
    )
    raise SectionError(msg)


def _differ(mpp: float, other: float) -> bool:
    return abs(mpp / other - 1.0) > MPP_TOLERANCE


def check_enlarged(geometry: TileGeometry) -> list[str]:
    """Return a warning if tiles are finer than the scan, so that their pixels are mostly interpolated."""
    target = target_mpp(geometry.tile_um, geometry.tile_px)
    enlarged = float(geometry.mpp) / float(target)
    if enlarged <= MAX_ENLARGED:
        return []
    return [
        f"tiles are read at {float(target):.4g} um/px and the slide has {float(geometry.mpp):.4g} um/px: they are "
        f"enlarged {enlarged:.2g} times and show no finer detail; choose a larger tile_um or fewer tile_px"
    ]


def reason_without_tiles(
    slide: Slide, tissue: TissueMask, geometry: TileGeometry, *, image: np.ndarray, min_tissue: float
) -> str:
    """Return why a slide has no tile: how much tissue was found, the limits, and the slide's size against a tile."""
    area, mpp = tissue.area, float(slide.mpp)
    size = f"{area.width * mpp:,.0f} x {area.height * mpp:,.0f} um"
    found = "your mask covers" if tissue.is_given else "tissue covers"
    boxes = grid_boxes(tissue.mask, geometry, area, stride=None, min_tissue=0.0)
    best = float(share_under(tissue.regions, boxes).max(initial=0.0)) if tissue.regions.area else 0.0
    best = math.floor(best * 1000.0) / 1000.0
    cause = _cause(tissue, geometry, image, best)
    limits = "" if tissue.is_given else f" (the smallest piece allowed is {_thousands(tissue.smallest_um2)} um2)"
    return (
        f"slide {slide.name!r} has no tile: {found} {tissue.share:.2%} of its {size}{limits}, and a tile of "
        f"{geometry.tile_um:g} um needs min_tissue={min_tissue:g} of tissue, the best one has {best:g}. {cause}"
    )


def _thousands(number: float) -> str:
    return f"{number:,.0f}" if number >= 100.0 else f"{number:.2g}"  # noqa: PLR2004 -- small numbers need their digits


def _cause(tissue: TissueMask, geometry: TileGeometry, image: np.ndarray, best: float) -> str:
    side = float(geometry.tile_um) / float(geometry.mpp)
    if tissue.share == 0.0 and tissue.is_given:
        return "Your mask has no area on this slide: draw it again, or take it out of `masks`"
    if tissue.share == 0.0 and np.quantile(np.ptp(image, axis=2), 0.999) < COLOURLESS:
        return "The image is grey or empty, and tissue is found by its stain: give an RGB image, or a mask (`masks`)"
    if tissue.share == 0.0:
        return "No stained tissue was found: look at the thumbnail, or give a mask (`masks`)"
    if tissue.area.width < side or tissue.area.height < side:
        return "The slide is smaller than a tile: lower tile_um and tile_px, or leave the slide out"
    return f"Its pieces of tissue are smaller than a tile: lower tile_um, or set min_tissue={best:g}"
