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
from raystp.slides.coordinates import TileGeometry, boxes_around, boxes_of_scales, name_spots, spots_inside
from raystp.slides.open import Slide, open_slide
from raystp.slides.patches.slide import PatchSlide
from raystp.slides.table import SlideRow
from raystp.slides.tissue.area import scanned_area, tissue_image, whole_area
from raystp.slides.tissue.empty import note_missing_tiles
from raystp.slides.tissue.masks import TissueMask, UserMask, slide_mask, tissue_grid
from raystp.slides.tissue.overview import write_images, write_patch_images
from raystp.slides.tissue.placement import check_on_tissue
from raystp.slides.tissue.quality import SlideQuality, sharpness, slide_quality
from raystp.steps.tile.checks import SectionScale, check_enlarged, check_scale, reason_without_tiles
from raystp.steps.tile.config import TileConfig
from raystp.steps.tile.patches import tiles_of_patches
from raystp.storage import StoragePath
from raystp.units import Level0Pixels, Microns, tile_centres, to_level0


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
    section_failure: str | None = None
    """Why the spots lack the slide's section."""


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
    bounds: list[int] | None
    """The scanned part (x, y, width, height) in level-0 px, where QuPath's coordinates start; None for all of it."""
    spots_outside: int
    """Measured spots that have no tile because their centre is outside the slide."""
    spots_without_patch: int
    """Measured spots that have no tile because the file of image patches has none of them."""
    warnings: list[str]


@dataclass(frozen=True)
class _Spots:
    """The measured spots of a slide whose centre is inside it."""

    names: list[str]
    centres: Float64[np.ndarray, "spot 2"]
    diameter: Level0Pixels
    outside: int
    warnings: list[str]
    """About those outside."""


@failure_as_reason
def tile_slide(task: TileTask) -> TileResult:
    """Tile one slide and return its row and its notes; a failure is returned as its reason."""
    row = task.row
    if task.section is not None and not task.section.exists():
        reason = (
            task.section_failure or "their slide table had no such section; run `raystp spots` again with this table"
        )
        msg = f"the measured section {row.section!r} of slide {row.slide!r} is missing in the spots: {reason}"
        raise SectionError(msg)
    derived_mpp = None if task.scale is None else task.scale.mpp
    cache = task.config.run.node_cache()
    with open_slide(row.slide, row.path, given_mpp=row.mpp, derived_mpp=derived_mpp, cache=cache) as slide:
        return _tile_patches(slide, task) if isinstance(slide, PatchSlide) else _tile_open(slide, task)


def _tile_patches(slide: PatchSlide, task: TileTask) -> TileResult:
    found = tiles_of_patches(slide, task.config, task.section, task.scale, masked=task.mask is not None)
    write_patch_images(task.target, slide, found.boxes)
    table = _tiles_table(slide.name, found.boxes, found.names)
    (task.target / "tiles" / f"{slide.name}.parquet").write_table(table)
    return {
        "slide": slide.name,
        "path": task.row.path.uri,
        "patient": task.row.patient,
        "mpp": float(found.scale.level0.mpp),
        "mpp_from": found.scale.level0.source,
        "width": slide.width,
        "height": slide.height,
        "native": False,
        "tissue": found.quality["tissue"],
        "tiles": len(found.boxes),
        "quality": found.quality,
        "reader": slide.reader,
        "bounds": None,
        "spots_outside": 0,
        "spots_without_patch": found.lost_spots,
        "warnings": found.warnings,
    }


def _tile_open(slide: Slide, task: TileTask) -> TileResult:
    config, geometries = task.config, task.config.geometries(slide.mpp)
    geometry, warnings = geometries[0], [*slide.warnings, *check_scale(slide, task.scale)]
    warnings += [warning for one in geometries for warning in check_enlarged(one)]
    spots = None if task.section is None else _spots(slide, task.section)
    area = scanned_area(slide)
    image = tissue_image(slide, area)
    warnings += _damage(slide)
    mask = None if task.mask is None else UserMask(task.mask, config.mask_frame)
    tissue = slide_mask(slide, area, image, mask)
    warnings += note_missing_tiles(slide.empty, tissue.detected, tissue.area)
    boxes = _grid(tissue, config, geometry) if spots is None else boxes_around(spots.centres, geometry)
    write_images(task.target, slide, image, tissue=tissue, boxes=boxes)  # also of a slide that fails below: to see why
    if not len(boxes):
        raise SlideError(reason_without_tiles(slide, tissue, geometry, image=image, min_tissue=config.min_tissue))
    if spots is not None:
        warnings += [*spots.warnings, *_check_spots(slide, tissue, spots, task)]
    quality = slide_quality(tissue, sharpness(slide, boxes, config.focus_tiles))
    names = None if spots is None else spots.names
    (task.target / "tiles" / f"{slide.name}.parquet").write_table(_tiles_table(slide.name, boxes, names))
    if len(geometries) > 1:
        centres = tile_centres(boxes) if spots is None else spots.centres
        scaled = _scales_table(boxes_of_scales(centres, geometries), config.scales)
        (task.target / "scales" / f"{slide.name}.parquet").write_table(scaled)
    return {
        "slide": slide.name,
        "path": task.row.path.uri,
        "patient": task.row.patient,
        "mpp": float(slide.mpp),
        "mpp_from": slide.mpp_from,
        "width": slide.width,
        "height": slide.height,
        "native": geometry.native,
        "tissue": tissue.share,
        "tiles": len(boxes),
        "quality": quality,
        "reader": slide.reader,
        "bounds": None if slide.bounds is None else list(slide.bounds),
        "spots_outside": 0 if spots is None else spots.outside,
        "spots_without_patch": 0,
        "warnings": [*warnings, *tissue.warnings],
    }


def _grid(tissue: TissueMask, config: TileConfig, geometry: TileGeometry) -> Float64[np.ndarray, "tile 3"]:
    stride = None if config.stride is None else Microns(config.stride)
    return tissue_grid(tissue, geometry, stride=stride, min_tissue=config.min_tissue)


def _spots(slide: Slide, path: StoragePath) -> _Spots:
    section = read_section(path)
    centres = np.asarray(section.obsm["spatial"], np.float64)
    names = [str(name) for name in section.obs_names]
    inside = spots_inside(slide.name, names, centres, width=slide.width, height=slide.height)
    outside = np.flatnonzero(~inside)
    warnings = []
    if len(outside):
        named = name_spots(names, centres, outside)
        warnings = [f"{len(outside)} of {len(names)} spots have their centre outside the slide and no tile: {named}"]
    diameter = to_level0(Microns(section_info(section).spot_diameter_um), slide.mpp)
    kept = [names[row] for row in np.flatnonzero(inside).tolist()]
    return _Spots(kept, centres[inside], diameter, len(outside), warnings)


def _check_spots(slide: Slide, tissue: TissueMask, spots: _Spots, task: TileTask) -> list[str]:
    """Return a warning about spots on bare glass; the error names the slide and the image to look at."""
    try:
        return check_on_tissue(
            tissue,
            spots.centres,
            spots.diameter,
            slide=whole_area(slide),
            allow_glass=task.config.allow_glass,
        )
    except SectionError as error:
        overview = task.target / "overviews" / f"{slide.name}.png"
        msg = f"slide {slide.name!r}: {error}; {overview} shows the tissue that was found and the spots' tiles"
        raise SectionError(msg) from None


def _tiles_table(slide: str, boxes: Float64[np.ndarray, "tile 3"], spots: Sequence[str] | None) -> pa.Table:
    count = len(boxes)
    names: list[str | None] = [*spots] if spots is not None else [None] * count
    columns = [[slide] * count, np.arange(count), boxes[:, 0], boxes[:, 1], boxes[:, 2], names]
    return tables.of_columns(columns, tables.TILES)


def _scales_table(boxes: Float64[np.ndarray, "tile scale 3"], sides: Sequence[float]) -> pa.Table:
    tile = np.repeat(np.arange(len(boxes)), len(sides))
    flat = boxes.reshape(-1, 3)
    columns = [tile, np.tile(sides, len(boxes)), flat[:, 0], flat[:, 1], flat[:, 2]]
    return tables.of_columns(columns, tables.SCALES)


def _damage(slide: Slide) -> list[str]:
    """Return a warning if parts of the slide could not be decoded; the tissue there is not seen."""
    if not slide.damaged:
        return []
    first = slide.damaged[0]
    return [
        f"{len(slide.damaged)} stored tiles cannot be decoded and count as glass, the first at x {first.x}, y "
        f"{first.y} ({first.width} x {first.height} px): {first.reason}"
    ]
