"""Pictures to check with the eye: where tissue was found on a slide, and where its tiles lie."""

import numpy as np
from jaxtyping import Bool, Float64, UInt8
from PIL import Image, ImageDraw
from scipy import ndimage

CONTOUR = (0, 160, 60)
TILE = (20, 60, 220)


def overview(
    thumbnail: UInt8[np.ndarray, "row col 3"],
    mask: Bool[np.ndarray, "row col"],
    squares: Float64[np.ndarray, "tile 3"],
    *,
    width: int,
) -> Image.Image:
    """Return the thumbnail with tissue's contour in green and every tile's outline in blue.

    `squares` are (x, y, side) in level-0 px of a slide that is `width` px wide.
    """
    picture = thumbnail.copy()
    picture[mask & ~ndimage.binary_erosion(mask)] = CONTOUR
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    scale = thumbnail.shape[1] / width
    for x, y, side in (squares * scale).tolist():
        draw.rectangle((x, y, x + side, y + side), outline=TILE)
    return image
