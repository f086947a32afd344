"""A slide's quality: how sharp it is at its tissue, and what the manifest records about it.

Sharpness is the variance of the Laplacian of luma (Pech-Pacheco et al. 2000): in focus, nuclei and fibres have edges.
It depends on the um/px and on the stain, so it is measured at one um/px for all slides. It ranks the slides of a
cohort; no single limit holds for all cohorts.
"""

import contextlib
from typing import TypedDict

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image
from scipy import ndimage

from raystp.errors import SlideError
from raystp.slides.open import Slide, read_around
from raystp.slides.tissue.masks import TissueMask
from raystp.units import Level0Pixels, Microns, TilePixels

FOCUS_MPP = 0.5
"""The um/px at which sharpness is measured. A coarser scan is measured at its own, comparable to such scans only."""

FOCUS_PX = TilePixels(256)


class SlideQuality(TypedDict):
    """What the manifest records about a slide; the keys are a stored format."""

    tissue: float
    """Share of the slide's area."""
    ink: float
    """Share of pen marks and black borders."""
    sharpness: float | None
    mask: str
    """`found`, `given`, or `none` for image patches, where `tissue` is the share that they cover."""


def slide_quality(tissue: TissueMask, sharp: float | None) -> SlideQuality:
    """Return a slide's quality for the manifest."""
    return {
        "tissue": round(tissue.share, 6),
        "ink": round(float(tissue.pen.mean()), 6),
        "sharpness": None if sharp is None else round(sharp, 2),
        "mask": "given" if tissue.is_given else "found",
    }


def sharpness(slide: Slide, boxes: Float64[np.ndarray, "tile 3"], count: int) -> float | None:
    """Return the median sharpness at the centres of `count` tiles, spread evenly over the list.

    Each is measured on 256 px at 0.5 um/px (128 um); those that cannot be read are left out. None if none is left.
    """
    chosen = boxes[np.unique(np.linspace(0, len(boxes) - 1, min(count, len(boxes))).astype(np.int64))]
    tile_um = Microns(FOCUS_PX * max(FOCUS_MPP, float(slide.mpp)))
    measured = []
    for x, y in (chosen[:, :2] + chosen[:, 2:] / 2.0).tolist():
        with contextlib.suppress(SlideError):  # a damaged stored tile: `embed` names the tiles over it
            pixels = read_around(slide, Level0Pixels(x), Level0Pixels(y), tile_um=tile_um, tile_px=FOCUS_PX)
            measured.append(laplacian_variance(pixels))
    return float(np.median(measured)) if measured else None


def laplacian_variance(pixels: UInt8[np.ndarray, "row col 3"]) -> float:
    """Return the variance of the Laplacian (4 neighbours) of an image's luma (ITU-R 601, 0 to 255)."""
    luma = np.asarray(Image.fromarray(pixels).convert("L"), np.float32)
    return float(ndimage.laplace(luma).var())
