"""Draw synthetic slides: a map of tissue types becomes an image of an H&E stained section on glass.

Only the map determines what a slide shows, and `expression.synthetic` plants genes on the same map. Patients differ
only in their stain. This is the default cohort: it needs no download and no licence, and its ground truth is known.
Light is absorbed by two dyes (Beer and Lambert): brightness = glass * exp(-haematoxylin - eosin).
"""

import numpy as np
from jaxtyping import Float32, UInt8
from scipy.ndimage import gaussian_filter

from raystp.errors import SlideError
from raystp.slides.synthetic.file import damage, write_slide
from raystp.slides.synthetic.nuclei import DIRECTIONS, VARIANTS, centres_of_type, nucleus_centres, nucleus_shapes, stamp
from raystp.slides.synthetic.texture import TEXTURES, enlarge, noise
from raystp.slides.synthetic.tissues import TISSUES, Stain, TissueType, draw_stain
from raystp.units import MicronsPerPixel

__all__ = ["TISSUES", "Stain", "TissueType", "damage", "draw_slide", "draw_stain", "tissue_map", "write_slide"]

BLOB_UM = 110.0
"""Width of the smooth fields, of which the largest at each place gives the tissue type: regions of 200 to 500 um."""
GRAIN = 2
"""Level-0 pixels per value between nuclei; only nuclei are drawn at full resolution."""
STRIP = 256
"""Rows that are coloured at a time, so that the data stays in the processor's cache."""
PEN: tuple[tuple[float, float, float], ...] = ((1.6, 0.45, 1.3), (1.9, 1.1, 0.25), (1.8, 1.8, 1.7))
"""Optical density of a green, a blue and a black felt pen in red, green, blue."""


def tissue_map(
    rng: np.random.Generator, *, width: int, height: int, mpp: MicronsPerPixel, cell: int
) -> UInt8[np.ndarray, "row col"]:
    """Return the tissue type of each square of `cell` level-0 pixels: 0 for glass, k for `TISSUES[k - 1]`.

    The tissue fills about four fifths of the slide with an irregular outline; the corners are glass.

    Raises:
        SlideError: the slide is not a whole number of cells.
    """
    if width % cell or height % cell or not width or not height:
        msg = f"a slide of {width} x {height} px is not a whole number of cells of {cell} px; use multiples of {cell}"
        raise SlideError(msg)
    shape, cell_um = (height // cell, width // cell), cell * mpp
    down, right = (np.abs((np.arange(n) + 0.5) / n * 2.0 - 1.0) / 0.95 for n in shape)
    outline = 1.0 - down[:, None] ** 2.6 - right[None, :] ** 2.6
    outline = outline + 0.12 * noise(rng, shape, 120.0 / cell_um) + 0.03 * noise(rng, shape, 25.0 / cell_um)
    fields = np.stack([noise(rng, shape, BLOB_UM / cell_um) for _ in TISSUES])
    return np.where(outline > 0.0, fields.argmax(axis=0) + 1, 0).astype(np.uint8)


def draw_slide(
    rng: np.random.Generator,
    tissue_map: UInt8[np.ndarray, "map_row map_col"],
    *,
    cell: int,
    mpp: MicronsPerPixel,
    stain: Stain,
    pen: bool = True,
) -> UInt8[np.ndarray, "row col 3"]:
    """Draw a map as an H&E image of `cell` level-0 pixels per square of the map; the same seed gives the same pixels.

    Types blend over about one cell at their borders. With `pen` a felt pen's arc crosses one corner. About 5 s for
    4096 x 4096 px on one core.

    Raises:
        SlideError: the map has a type that is not in `TISSUES`.
    """
    if int(tissue_map.max(initial=0)) > len(TISSUES):
        msg = f"the tissue map has type {tissue_map.max()}; allowed are 0 (glass) to {len(TISSUES)}"
        raise SlideError(msg)
    shape = (tissue_map.shape[0] * cell, tissue_map.shape[1] * cell)
    coarse = (-(-shape[0] // GRAIN), -(-shape[1] // GRAIN))
    haze, eosin = np.zeros(coarse, np.float32), np.zeros(coarse, np.float32)
    nuclei = np.zeros(shape, np.float32)
    for kind in sorted(set(tissue_map.ravel().tolist()) - {0}):
        tissue = TISSUES[kind - 1]
        layer = TEXTURES[tissue.texture](rng, coarse, mpp * GRAIN)
        share = gaussian_filter((tissue_map == kind).astype(np.float32), 0.8)  # smooths the steps of the map
        weight = np.clip(enlarge(share, coarse), 0.0, 1.0)
        haze += weight * layer.haze * tissue.haze
        eosin += weight * layer.eosin * tissue.eosin
        xy, angle = nucleus_centres(rng, layer, tissue.nuclei_per_mm2 * (mpp / 1000.0) ** 2, shape)
        kept = centres_of_type(xy, tissue_map, cell=cell, kind=kind)
        direction = np.rint(angle[kept] / np.pi * DIRECTIONS).astype(np.int64) % DIRECTIONS
        which = direction * VARIANTS + rng.integers(0, VARIANTS, len(kept))
        stamp(nuclei, nucleus_shapes(rng, tissue, mpp), xy[kept], which)
    image = _colour(rng, stain, haze=haze, eosin=eosin, nuclei=nuclei)
    if pen:
        _draw_pen(rng, image)
    return image


def _colour(
    rng: np.random.Generator,
    stain: Stain,
    *,
    haze: Float32[np.ndarray, "coarse_row coarse_col"],
    eosin: Float32[np.ndarray, "coarse_row coarse_col"],
    nuclei: Float32[np.ndarray, "row col"],
) -> UInt8[np.ndarray, "row col 3"]:
    """Return the light transmitted by both dyes, with the fine grain of a section and of a camera."""
    haze, eosin = enlarge(haze, nuclei.shape), enlarge(eosin, nuclei.shape)
    grain = noise(rng, (STRIP, nuclei.shape[1]), 0.8)
    image = np.empty((*nuclei.shape, 3), np.uint8)
    for top in range(0, nuclei.shape[0], STRIP):
        rows = slice(top, top + STRIP)
        speckle = np.roll(grain, int(rng.integers(grain.shape[1])), axis=1)[: len(nuclei[rows])]
        blue = (nuclei[rows] + haze[rows]) * (1.0 + 0.10 * speckle)
        pink = eosin[rows] * (1.0 - 0.55 * np.minimum(nuclei[rows], 1.0)) * (1.0 + 0.08 * speckle)
        for channel in range(3):
            density = blue * np.float32(stain.haematoxylin[channel]) + pink * np.float32(stain.eosin[channel])
            light = np.float32(stain.glass[channel]) * np.exp(-density) + np.float32(0.7) * speckle
            image[rows, :, channel] = np.clip(light, 0.0, 255.0)
    return image


def _draw_pen(rng: np.random.Generator, image: UInt8[np.ndarray, "row col 3"]) -> None:
    """Draw a felt pen's arc around one corner of the image, in place; the image below shows through."""
    side = int(0.24 * min(image.shape[:2]))
    box = image[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))][:side, :side]
    down, right = np.indices((side, side), dtype=np.float32) / side
    turn = np.arctan2(down, right)
    middle = 0.55 + 0.06 * np.sin(5.0 * turn + rng.uniform(0.0, 6.0))
    stroke = np.clip((0.085 - np.abs(np.hypot(down, right) - middle)) * 30.0, 0.0, 1.0)
    stroke *= np.clip((turn - 0.12) * 20.0, 0.0, 1.0) * np.clip((1.45 - turn) * 20.0, 0.0, 1.0)
    density = np.array(PEN[int(rng.integers(len(PEN)))], np.float32)
    box[:] = (box * np.exp(-stroke[..., None] * density)).astype(np.uint8)
