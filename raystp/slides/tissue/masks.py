"""What is tissue on one slide of the `tile` step, found or given, the grid over it, and what is left to look at."""

import hashlib
import io
from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Bool, Float64, UInt8
from PIL import Image

from raystp.errors import ConfigError, StorageError, some
from raystp.slides.open import Slide
from raystp.slides.places import TileGeometry, grid
from raystp.slides.tissue.detect import find_tissue
from raystp.slides.tissue.geojson import from_geojson, to_geojson
from raystp.slides.tissue.pictures import overview
from raystp.slides.tissue.regions import outlined, rastered, share_under
from raystp.storage import StoragePath
from raystp.units import Microns

ROUNDING = 1e-9
"""A tile wholly on tissue counts as 1.0 although its share was added up from floats; as in `slides.places`."""


@dataclass(frozen=True)
class TissueMask:
    """Tissue as pixels of the thumbnail, and as polygons in level-0 px."""

    mask: Bool[np.ndarray, "row col"]
    ink: Bool[np.ndarray, "row col"]
    regions: shapely.MultiPolygon
    share: float
    """Of the slide's area."""
    given: bool
    """Whether the mask is the user's own; then ink cuts nothing out of it."""


def own_masks(folder: str | None, slides: list[str]) -> dict[str, StoragePath]:
    """Return the slides' own masks in a folder; raises ConfigError where not one of its files is a slide's."""
    if folder is None:
        return {}
    place = StoragePath.of(folder)
    names = set(place.names())
    found = {slide: place / f"{slide}.geojson" for slide in slides if f"{slide}.geojson" in names}
    if not found:
        there = f"there are {some(sorted(names))}" if names else "there is nothing"
        msg = f"masks: {place} has no mask of any slide of the table, such as '{slides[0]}.geojson'; {there}"
        raise ConfigError(msg)
    return found


def digest(mask: StoragePath) -> str:
    """Return the digest of a whole mask: an edit may leave its size, its head and its tail as they were.

    One that cannot be read has none: its slide will say so, and the others go on.
    """
    try:
        return hashlib.sha256(mask.read_bytes()).hexdigest()[:16]
    except StorageError:
        return "unreadable"


def look(slide: Slide, thumbnail: UInt8[np.ndarray, "row col 3"], own: StoragePath | None) -> TissueMask:
    """Return the slide's tissue: what is found on its thumbnail, or what the user's mask says.

    Raises SlideError for a mask that is none, or not of this slide.
    """
    width, height = slide.width, slide.height
    found = find_tissue(thumbnail, float(slide.mpp) * max(width, height) / max(thumbnail.shape))
    if own is None:
        regions = outlined(found.mask, width=width, height=height)
        return TissueMask(found.mask, found.ink, regions, float(found.mask.mean()), given=False)
    where = f"the mask {own} of slide {slide.name!r}"
    regions = from_geojson(own.read_bytes(), where, width=width, height=height)
    rows, columns = found.mask.shape
    mask, share = rastered(regions, (rows, columns), width=width, height=height)
    return TissueMask(mask, found.ink, regions, share, given=True)


def tissue_grid(
    slide: Slide, seen: TissueMask, framing: TileGeometry, *, stride: Microns | None, min_tissue: float
) -> Float64[np.ndarray, "tile 3"]:
    """Return the grid over what is tissue: under found pixels, or exactly under the polygons that were given."""
    least = 0.0 if seen.given else min_tissue
    squares = grid(seen.mask, framing, width=slide.width, height=slide.height, stride=stride, min_tissue=least)
    if not seen.given:
        return squares
    return squares[share_under(seen.regions, squares) >= min_tissue - ROUNDING]


def quality(seen: TissueMask, sharp: float | None) -> dict[str, object]:
    """Return what the notes say of a slide: shares of its area that are tissue and ink, sharpness, whose mask it is."""
    return {
        "tissue": round(seen.share, 6),
        "ink": round(float(seen.ink.mean()), 6),
        "sharpness": None if sharp is None else round(sharp, 2),
        "mask": "given" if seen.given else "found",
    }


def save(
    target: StoragePath,
    slide: Slide,
    thumbnail: UInt8[np.ndarray, "row col 3"],
    *,
    seen: TissueMask,
    squares: Float64[np.ndarray, "tile 3"],
) -> None:
    """Write the slide's thumbnail, its mask as a picture and as GeoJSON, and all of it in one picture."""
    pictures = {
        "thumbnails": Image.fromarray(thumbnail),
        "masks": Image.fromarray(seen.mask.astype(np.uint8) * 255),
        "overviews": overview(thumbnail, seen.mask, squares, width=slide.width, ink=seen.ink),
    }
    for folder, picture in pictures.items():
        png = io.BytesIO()
        picture.save(png, format="PNG", compress_level=1)  # a third of the CPU time, 15 % more bytes
        (target / folder / f"{slide.name}.png").write_bytes(png.getvalue())
    geojson = to_geojson(seen.regions, slide=slide.name, width=slide.width, height=slide.height)
    (target / "masks" / f"{slide.name}.geojson").write_bytes(geojson)
