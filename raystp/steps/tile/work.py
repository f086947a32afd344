"""Tile one slide, in a Ray worker: its boxes, its tissue mask, and the images for checking by eye."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from raystp import tables
from raystp.errors import SectionError, SlideError, failure_as_reason
from raystp.expression.schema import read_section, section_info
from raystp.slides.coordinates import boxes_around, name_spots, spots_inside
from raystp.slides.open import Slide, open_slide
from raystp.slides.table import SlideRow
from raystp.slides.tissue.area import scanned_area, tissue_image, whole_area
from raystp.slides.tissue.empty import note_missing_tiles
from raystp.slides.tissue.masks import TissueMask, UserMask, slide_mask, tissue_grid
from raystp.slides.tissue.overview import write_images
from raystp.slides.tissue.placement import check_on_tissue
from raystp.slides.tissue.quality import SlideQuality, sharpness, slide_quality
from raystp.steps.tile.checks import SectionScale, check_enlarged, check_scale, reason_without_tiles
from raystp.steps.tile.config import TileConfig
from raystp.storage import StoragePath
from raystp.units import Microns, to_level0


@dataclass(frozen=True)
class TileTask:
    """One slide to tile."""

    row: SlideRow
    config: TileConfig
    target: StoragePath
    section: StoragePath | None = None
    """The slide's measured spots."""
    scale: SectionScale | None = None
    """Their um/px."""
    mask: StoragePath | None = None
    """The user's own mask."""


class TileResult(TypedDict):
    """A slide's row of the slides table, without `content`, and what the manifest records about it."""

    slide: str
    path: str
    patient: str
    mpp: float
    mpp_from: str
    width: int
    height: int
    native: bool
    tissue: float
    tiles: int
    quality: SlideQuality
    reader: str
    spots_outside: int
    """Measured spots that have no tile because their centre is outside the slide."""
    warnings: list[str]


@dataclass(frozen=True)
class _Boxes:
    """The boxes of a slide, and for boxes around measured spots their ids."""

    boxes: Float64[np.ndarray, "tile 3"]
    spots: list[str] | None
    outside: int
    warnings: list[str]


@failure_as_reason
def tile_slide(task: TileTask) -> TileResult:
    """Tile one slide and return its row and its notes; a failure is returned as its reason."""
    row, config = task.row, task.config
    if task.section is not None and not task.section.exists():
        msg = f"the measured section of slide {row.slide!r} is missing in the spots; see their failures table"
        raise SectionError(msg)
    derived_mpp = None if task.scale is None else task.scale.mpp
    with open_slide(
        row.slide, row.path, given_mpp=row.mpp, derived_mpp=derived_mpp, cache=config.run.node_cache()
    ) as slide:
        warnings = [*slide.warnings, *check_scale(slide, task.scale), *check_enlarged(config.geometry(slide.mpp))]
        area = scanned_area(slide)
        image = tissue_image(slide, area)
        warnings += _damage(slide)
        mask = None if task.mask is None else UserMask(task.mask, config.mask_frame)
        tissue = slide_mask(slide, area, image, mask)
        warnings += note_missing_tiles(slide.empty, tissue.detected, tissue.area)
        found = _boxes(slide, tissue, task)
        boxes = found.boxes
        write_images(task.target, slide, image, tissue=tissue, boxes=boxes)
        if not len(boxes):
            geometry = config.geometry(slide.mpp)
            raise SlideError(reason_without_tiles(slide, tissue, geometry, image=image, min_tissue=config.min_tissue))
        quality = slide_quality(tissue, sharpness(slide, boxes, config.focus_tiles))
        (task.target / "tiles" / f"{row.slide}.parquet").write_table(_tiles_table(row.slide, boxes, found.spots))
        return {
            "slide": row.slide,
            "path": row.path.uri,
            "patient": row.patient,
            "mpp": float(slide.mpp),
            "mpp_from": slide.mpp_from,
            "width": slide.width,
            "height": slide.height,
            "native": config.geometry(slide.mpp).native,
            "tissue": tissue.share,
            "tiles": len(boxes),
            "quality": quality,
            "reader": slide.reader,
            "spots_outside": found.outside,
            "warnings": [*warnings, *tissue.warnings, *found.warnings],
        }


def _boxes(slide: Slide, tissue: TissueMask, task: TileTask) -> _Boxes:
    """Return the tile boxes around the slide's spots, or a grid over its tissue."""
    config, geometry = task.config, task.config.geometry(slide.mpp)
    if task.section is None:
        stride = None if config.stride is None else Microns(config.stride)
        return _Boxes(tissue_grid(tissue, geometry, stride=stride, min_tissue=config.min_tissue), None, 0, [])
    section = read_section(task.section)
    centres = np.asarray(section.obsm["spatial"], np.float64)
    names = [str(name) for name in section.obs_names]
    inside = spots_inside(slide.name, names, centres, width=slide.width, height=slide.height)
    outside = np.flatnonzero(~inside)
    warnings = []
    if len(outside):
        named = name_spots(names, centres, outside)
        warnings = [f"{len(outside)} of {len(names)} spots have their centre outside the slide and no tile: {named}"]
    diameter = to_level0(Microns(section_info(section).spot_diameter_um), slide.mpp)
    warnings += check_on_tissue(
        tissue, centres[inside], diameter, slide=whole_area(slide), allow_glass=config.allow_glass
    )
    kept = [names[row] for row in np.flatnonzero(inside).tolist()]
    return _Boxes(boxes_around(centres[inside], geometry), kept, len(outside), warnings)


def _tiles_table(slide: str, boxes: Float64[np.ndarray, "tile 3"], spots: Sequence[str] | None) -> pa.Table:
    count = len(boxes)
    names: list[str | None] = [*spots] if spots is not None else [None] * count
    columns = [[slide] * count, np.arange(count), boxes[:, 0], boxes[:, 1], boxes[:, 2], names]
    return tables.of_columns(columns, tables.TILES)


def _damage(slide: Slide) -> list[str]:
    """Return a warning if parts of the slide could not be decoded; the tissue there is not seen."""
    if not slide.damaged:
        return []
    first = slide.damaged[0]
    return [
        f"{len(slide.damaged)} stored tiles cannot be decoded and count as glass, the first at x {first.x}, y "
        f"{first.y} ({first.width} x {first.height} px): {first.reason}"
    ]
