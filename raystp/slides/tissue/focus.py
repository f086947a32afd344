"""How sharp a slide is where its tissue is, to find the ones that were scanned out of focus.

The measure is the variance of the Laplacian of luma (Pech-Pacheco et al. 2000): in focus, nuclei and fibres have edges.
It depends on the um/px and on the stain, so it is taken at one um/px for all slides, and it ranks the slides of a
cohort; it is no limit that holds everywhere.
"""

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image
from scipy import ndimage

from raystp.slides.open import Slide, read_microns
from raystp.units import Level0Pixels, Microns, TilePixels

FOCUS_MPP = 0.5
"""The um/px at which sharpness is measured; a coarser scan's own um/px instead, which compares with its like alone."""

FOCUS_PX = TilePixels(256)


def sharpness(slide: Slide, squares: Float64[np.ndarray, "tile 3"], places: int) -> float | None:
    """Return the median over `places` tiles, spread evenly over the list, of the measure at their middle.

    Each place is 256 px at 0.5 um/px (128 um). None where there is no tile, or no place is asked for.
    """
    chosen = squares[np.unique(np.linspace(0, len(squares) - 1, min(places, len(squares))).astype(np.int64))]
    side = Microns(FOCUS_PX * max(FOCUS_MPP, float(slide.mpp)))
    measured = [
        laplacian_variance(read_microns(slide, Level0Pixels(x), Level0Pixels(y), side=side, pixels=FOCUS_PX))
        for x, y in (chosen[:, :2] + chosen[:, 2:] / 2.0).tolist()
    ]
    return float(np.median(measured)) if measured else None


def laplacian_variance(pixels: UInt8[np.ndarray, "row col 3"]) -> float:
    """Return the variance of the Laplacian (4 neighbours) of a picture's luma (ITU-R 601, 0 to 255)."""
    luma = np.asarray(Image.fromarray(pixels).convert("L"), np.float32)
    return float(ndimage.laplace(luma).var())
