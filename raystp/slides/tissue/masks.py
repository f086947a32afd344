"""Tissue masks of slides: detected on the thumbnail or given by the user, and the tile grid over them."""

import hashlib
from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Bool, Float64, UInt8

from raystp.errors import ConfigError, StorageError, some
from raystp.slides.coordinates import ROUNDING, Area, TileGeometry, grid_boxes
from raystp.slides.open import Slide
from raystp.slides.tissue.area import um_per_px, whole_area
from raystp.slides.tissue.detect import detect_tissue, smallest_piece_um2
from raystp.slides.tissue.frames import AUTO, MaskGround, place_mask
from raystp.slides.tissue.geojson import from_geojson
from raystp.slides.tissue.regions import outline, rasterize, share_under
from raystp.storage import StoragePath
from raystp.units import Microns


@dataclass(frozen=True)
class TissueMask:
    """Tissue as pixels of an image of the scanned area, and as polygons in level-0 px."""

    area: Area
    """What the pixels cover: the slide's bounds, or the whole slide."""
    mask: Bool[np.ndarray, "row col"]
    pen: Bool[np.ndarray, "row col"]
    """Pen marks and black borders."""
    detected: Bool[np.ndarray, "row col"]
    """The tissue that was detected; equal to `mask` if the user gave none."""
    regions: shapely.MultiPolygon
    share: float
    """Of the area."""
    smallest_um2: float
    """The smallest piece of tissue that is detected."""
    is_given: bool
    """Whether the mask is the user's own; pen marks are not cut out of it."""
    warnings: list[str]


@dataclass(frozen=True)
class UserMask:
    """The user's own mask of a slide: its file, and the frame of its coordinates (`auto`, `level0`, `bounds`)."""

    path: StoragePath
    frame: str = AUTO


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


def slide_mask(
    slide: Slide, area: Area, image: UInt8[np.ndarray, "row col 3"], user_mask: UserMask | None
) -> TissueMask:
    """Return the slide's tissue: detected on an image of `area`, or read from the user's mask.

    Raises:
        SlideError: the user's mask is invalid, or belongs to another slide.
    """
    scale = um_per_px(slide, area, image)
    found = detect_tissue(image, scale)
    smallest_um2 = smallest_piece_um2(image.shape, scale)
    if user_mask is None:
        regions, share = outline(found.mask, area), float(found.mask.mean())
        return TissueMask(
            area, found.mask, found.pen, found.mask, regions, share, smallest_um2, is_given=False, warnings=[]
        )
    where = f"the mask {user_mask.path} of slide {slide.name!r}"
    drawn = from_geojson(user_mask.path.read_bytes(), where, width=slide.width, height=slide.height)
    ground = MaskGround(whole_area(slide), area, found.mask)
    placed = place_mask(drawn, where, ground, frame=user_mask.frame)
    rows, columns = found.mask.shape
    mask, share = rasterize(placed.regions, (rows, columns), area)
    return TissueMask(
        area, mask, found.pen, found.mask, placed.regions, share, smallest_um2, is_given=True, warnings=placed.warnings
    )


def tissue_grid(
    tissue: TissueMask, geometry: TileGeometry, *, stride: Microns | None, min_tissue: float
) -> Float64[np.ndarray, "tile 3"]:
    """Return the grid boxes with enough tissue: by detected pixels, or exactly by the user's polygons."""
    least = 0.0 if tissue.is_given else min_tissue
    boxes = grid_boxes(tissue.mask, geometry, tissue.area, stride=stride, min_tissue=least)
    if not tissue.is_given:
        return boxes
    return boxes[share_under(tissue.regions, boxes) >= min_tissue - ROUNDING]
