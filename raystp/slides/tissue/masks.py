"""Tissue masks of slides: detected on the thumbnail or given by the user, and the tile grid over them."""

import hashlib
from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Bool, Float64, UInt8

from raystp.errors import ConfigError, StorageError, some
from raystp.slides.coordinates import ROUNDING, TileGeometry, grid_boxes
from raystp.slides.open import Slide
from raystp.slides.tissue.detect import detect_tissue
from raystp.slides.tissue.geojson import from_geojson
from raystp.slides.tissue.regions import outline, rasterize, share_under
from raystp.storage import StoragePath
from raystp.units import Microns


@dataclass(frozen=True)
class TissueMask:
    """Tissue as pixels of the thumbnail, and as polygons in level-0 px."""

    mask: Bool[np.ndarray, "row col"]
    pen: Bool[np.ndarray, "row col"]
    """Pen marks and black borders."""
    regions: shapely.MultiPolygon
    share: float
    """Of the slide's area."""
    is_given: bool
    """Whether the mask is the user's own; pen marks are not cut out of it."""


def user_masks(folder: str | None, slides: list[str]) -> dict[str, StoragePath]:
    """Return the path of each slide's own mask in a folder; raise ConfigError if no file belongs to a slide."""
    if folder is None:
        return {}
    path = StoragePath.of(folder)
    names = set(path.names())
    found = {slide: path / f"{slide}.geojson" for slide in slides if f"{slide}.geojson" in names}
    if not found:
        content = f"it has {some(sorted(names))}" if names else "it is empty or does not exist"
        msg = f"masks: {path} has no mask of any slide of the table, such as '{slides[0]}.geojson'; {content}"
        raise ConfigError(msg)
    return found


def mask_digest(mask: StoragePath) -> str:
    """Return the digest of a whole mask file: an edit may leave its size, its head and its tail unchanged.

    An unreadable file gives `unreadable`; its slide fails later, and the others continue.
    """
    try:
        return hashlib.sha256(mask.read_bytes()).hexdigest()[:16]
    except StorageError:
        return "unreadable"


def slide_mask(slide: Slide, thumbnail: UInt8[np.ndarray, "row col 3"], user_mask: StoragePath | None) -> TissueMask:
    """Return the slide's tissue: detected on its thumbnail, or read from the user's mask.

    Raises:
        SlideError: the user's mask is invalid, or belongs to another slide.
    """
    width, height = slide.width, slide.height
    detected = detect_tissue(thumbnail, float(slide.mpp) * max(width, height) / max(thumbnail.shape))
    if user_mask is None:
        regions = outline(detected.mask, width=width, height=height)
        return TissueMask(detected.mask, detected.pen, regions, float(detected.mask.mean()), is_given=False)
    where = f"the mask {user_mask} of slide {slide.name!r}"
    regions = from_geojson(user_mask.read_bytes(), where, width=width, height=height)
    rows, columns = detected.mask.shape
    mask, share = rasterize(regions, (rows, columns), width=width, height=height)
    return TissueMask(mask, detected.pen, regions, share, is_given=True)


def tissue_grid(
    slide: Slide, tissue: TissueMask, geometry: TileGeometry, *, stride: Microns | None, min_tissue: float
) -> Float64[np.ndarray, "tile 3"]:
    """Return the grid boxes with enough tissue: by detected pixels, or exactly by the user's polygons."""
    least = 0.0 if tissue.is_given else min_tissue
    boxes = grid_boxes(tissue.mask, geometry, width=slide.width, height=slide.height, stride=stride, min_tissue=least)
    if not tissue.is_given:
        return boxes
    return boxes[share_under(tissue.regions, boxes) >= min_tissue - ROUNDING]
