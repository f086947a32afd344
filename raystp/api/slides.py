"""Slides in a notebook: open one, find its tissue, place tiles on it, and read them."""

from pathlib import Path

import numpy as np
from jaxtyping import Float64, UInt8

from raystp.slides import open as slides
from raystp.slides.coordinates import TileGeometry
from raystp.slides.open import Slide
from raystp.slides.tissue.area import scanned_area, tissue_image
from raystp.slides.tissue.masks import TissueMask, UserMask, slide_mask, tissue_grid
from raystp.storage import StoragePath
from raystp.units import Microns, TilePixels


def open_slide(path: str | Path, *, name: str | None = None, mpp: float | None = None) -> Slide:
    """Open a slide by path or URI; close it, or use it in a `with` block.

    `width`, `height` and all coordinates are in px of level 0. `mpp` is the um/px of the scan, for a file without one;
    it takes precedence over the file's own. `name` is for messages; the default is the file's name.

    Raises:
        SlideError: the file is not a slide, is damaged, or has no plausible um/px.
        StorageError: the object cannot be read.

    Examples:
        >>> with rs.open_slide(cohort / "slides" / "unmeasured.svs") as slide:
        ...     slide.width, slide.height, slide.mpp
        (1536, 1536, 0.5)
    """
    place = StoragePath.of(path)
    return slides.open_slide(name or place.name.rpartition(".")[0] or place.name, place, given_mpp=mpp)


def find_tissue(slide: Slide, *, mask: str | Path | None = None) -> TissueMask:
    """Return the tissue of a slide: detected on an image of about 16 um/px, or read from a GeoJSON file.

    `regions` are polygons in level-0 px, `share` is the tissue's share of the scanned area.

    Raises:
        SlideError: the image cannot be read, or the mask is invalid or belongs to another slide.

    Examples:
        >>> with rs.open_slide(cohort / "slides" / "unmeasured.svs") as slide:
        ...     tissue = rs.find_tissue(slide)
        >>> 0 < tissue.share < 1
        True
    """
    area = scanned_area(slide)
    own = None if mask is None else UserMask(StoragePath.of(mask))
    return slide_mask(slide, area, tissue_image(slide, area), own)


def tile_grid(
    slide: Slide,
    tissue: TissueMask | None = None,
    *,
    tile_um: float = 112.0,
    tile_px: int = 224,
    stride_um: float | None = None,
    min_tissue: float = 0.5,
) -> Float64[np.ndarray, "tile 3"]:
    """Return boxes (x, y, side) of a grid over the tissue, in level-0 px, in reading order.

    A tile has a side of `tile_um` um of tissue and is read as `tile_px` px. Tiles start every `stride_um` um, by
    default every `tile_um`. At least the share `min_tissue` of a tile is tissue, which is found if it is not given.

    Raises:
        SlideError: the tissue cannot be found.

    Examples:
        >>> with rs.open_slide(cohort / "slides" / "unmeasured.svs") as slide:
        ...     boxes = rs.tile_grid(slide, tile_um=112.0)
        >>> boxes.shape[1], float(boxes[0, 2])
        (3, 224.0)
    """
    found = find_tissue(slide) if tissue is None else tissue
    geometry = TileGeometry(Microns(tile_um), TilePixels(tile_px), slide.mpp)
    stride = None if stride_um is None else Microns(stride_um)
    return tissue_grid(found, geometry, stride=stride, min_tissue=min_tissue)


def read_tiles(
    slide: Slide, boxes: Float64[np.ndarray, "tile 3"], *, tile_px: int = 224, threads: int = 1
) -> UInt8[np.ndarray, "tile pixel pixel 3"]:
    """Return boxes (x, y, side; level-0 px) as RGB tiles of `tile_px` x `tile_px`, in the order of the boxes.

    Raises:
        SlideError: a tile cannot be read; the message has its number and its box.

    Examples:
        >>> with rs.open_slide(cohort / "slides" / "unmeasured.svs") as slide:
        ...     tiles = rs.read_tiles(slide, rs.tile_grid(slide)[:2])
        >>> tiles.shape, str(tiles.dtype)
        ((2, 224, 224, 3), 'uint8')
    """
    return slides.read_tiles(slide, np.asarray(boxes, np.float64), TilePixels(tile_px), threads=threads)
