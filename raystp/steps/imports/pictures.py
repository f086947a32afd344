"""The thumbnail of an imported slide: of the slide itself, or a map of its tiles where it is not at hand."""

import io

import numpy as np
import shapely
from jaxtyping import Float64
from PIL import Image, ImageDraw
from shapely.geometry.base import BaseGeometry

from raystp.slides.open import Slide

LONGEST = 1024
TILE, GLASS = (206, 190, 206), (255, 255, 255)


def picture(slide: Slide | None, boxes: Float64[np.ndarray, "tile 3"], size: tuple[int, int]) -> bytes:
    """Return a PNG of a slide, or of its tiles on white where there is no slide; `size` is in level-0 px."""
    image = Image.fromarray(slide.thumbnail(LONGEST)) if slide is not None else _map(boxes, size)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def _map(boxes: Float64[np.ndarray, "tile 3"], size: tuple[int, int]) -> Image.Image:
    scale = min(1.0, LONGEST / max(size))
    image = Image.new("RGB", (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))), GLASS)
    draw = ImageDraw.Draw(image)
    for x, y, side in (boxes * scale).tolist():
        draw.rectangle((x, y, max(x, x + side - 1), max(y, y + side - 1)), fill=TILE)
    return image


def as_polygons(regions: BaseGeometry) -> shapely.MultiPolygon:
    """Return the parts of a geometry that have an area."""
    parts = shapely.get_parts(shapely.get_parts(regions))
    return shapely.MultiPolygon([one for one in parts if isinstance(one, shapely.Polygon)])
