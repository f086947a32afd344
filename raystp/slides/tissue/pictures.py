"""Pictures to check with the eye: where tissue and ink were found on a slide, and where its tiles lie."""

import numpy as np
from jaxtyping import Bool, Float64, UInt8
from PIL import Image, ImageDraw
from scipy import ndimage

CONTOUR = (0, 160, 60)
TILE = (20, 60, 220)
INK = (255, 140, 0)

FAINT_BELOW = 8.0
"""Tiles of fewer px than this on the picture are drawn half through: their outlines would hide the tissue."""


def overview(
    thumbnail: UInt8[np.ndarray, "row col 3"],
    mask: Bool[np.ndarray, "row col"],
    squares: Float64[np.ndarray, "tile 3"],
    *,
    width: int,
    ink: Bool[np.ndarray, "row col"] | None = None,
) -> Image.Image:
    """Return the thumbnail with every tile's outline in blue, tissue's contour in green, and ink's in orange.

    `squares` are (x, y, side) in level-0 px of a slide that is `width` px wide.
    """
    image = Image.fromarray(thumbnail.copy())
    draw = ImageDraw.Draw(image)
    sides = squares * (thumbnail.shape[1] / width)
    for x, y, side in sides.tolist():
        draw.rectangle((x, y, x + side, y + side), outline=TILE)
    if len(sides) and sides[:, 2].min() < FAINT_BELOW:
        image = Image.blend(Image.fromarray(thumbnail), image, 0.4)
    picture = np.array(image)
    for part, colour in ((ink, INK), (mask, CONTOUR)):
        if part is not None:
            picture[part & ~ndimage.binary_erosion(part)] = colour
    return Image.fromarray(picture)
