"""Place a user's mask on the slide: find the frame of its coordinates, and check that it is this slide's.

QuPath shows only the bounds of a slide that has them, and its coordinates start there. OpenSlide's start at the corner
of the whole glass. A mask in one frame that is taken for the other lies on empty glass.
"""

from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Bool
from shapely.geometry.base import BaseGeometry

from raystp.errors import SlideError
from raystp.slides.coordinates import Area
from raystp.slides.tissue.geojson import BOUNDS, LEVEL0, DrawnMask
from raystp.slides.tissue.regions import cell_areas

AUTO = "auto"

OVERHANG = 0.02
"""Share of the slide's sides by which a polygon may extend beyond the edge, as a hand-drawn one does; it is clipped."""

CLEARLY = 0.1
"""In the right frame at least this much more of a mask's area is on tissue than in the other."""

MOSTLY = 0.5
"""Share of a mask's area that counts as most of it."""

CLIPPED = 0.01
"""Share of a mask's area beyond the edge that gets a warning."""


@dataclass(frozen=True)
class MaskGround:
    """What a mask is placed on: the slide, its scanned area, and the tissue that was detected there."""

    slide: Area
    area: Area
    detected: Bool[np.ndarray, "row col"]
    """Covers `area`."""


@dataclass(frozen=True)
class PlacedMask:
    """A user's mask in level-0 px, clipped to the scanned area, with its warnings."""

    regions: shapely.MultiPolygon
    warnings: list[str]


def place_mask(drawn: DrawnMask, where: str, ground: MaskGround, *, frame: str) -> PlacedMask:
    """Return a mask's regions on the slide. `frame` is `level0`, `bounds` or `auto`; `auto` uses what the file states.

    Raises:
        SlideError: the mask does not fit the slide in this frame, or, with `auto`, the frame is not clear.
    """
    area, warnings = ground.area, []
    if drawn.left_out:
        warnings.append(
            f"{drawn.left_out:,} cells and detections of the mask are not read: its annotations are the tissue"
        )
    if frame == AUTO:
        frame = drawn.frame or _recognise(drawn, where, ground)
        if frame == BOUNDS and drawn.frame is None:
            warnings.append(
                f"the mask is in QuPath's frame, which starts at the slide's bounds: shifted by x {area.x}, y {area.y} "
                "px (mask_frame=level0 would leave it)"
            )
    extent, regions = drawn.extent, drawn.regions
    if frame == BOUNDS and any(area.origin):
        regions = shapely.transform(regions, lambda xy: xy + area.origin)
        extent = _moved(extent, area)
    _check_inside(extent, where, ground, frame)
    inside = shapely.intersection(regions, _box(area))
    warnings += _doubts(regions, inside, where, ground)
    parts = [one for one in shapely.get_parts(inside) if one.geom_type == "Polygon"]
    return PlacedMask(shapely.MultiPolygon(parts), warnings)


def _recognise(drawn: DrawnMask, where: str, ground: MaskGround) -> str:
    """Return the frame in which a mask fits the slide, and has clearly more tissue if both fit."""
    area = ground.area
    if not any(area.origin) or drawn.extent is None or not drawn.regions.area:
        return LEVEL0
    if not _fits(_moved(drawn.extent, area), area):
        return LEVEL0
    there = shapely.transform(drawn.regions, lambda xy: xy + area.origin)
    if not _fits(drawn.extent, ground.slide) or _inside_share(drawn.regions, area) < MOSTLY:
        return BOUNDS
    tissue, tissue_there = _tissue_share(drawn.regions, ground), _tissue_share(there, ground)
    if abs(tissue_there - tissue) >= CLEARLY:
        return BOUNDS if tissue_there > tissue else LEVEL0
    msg = (
        f"{where} fits the slide in two frames: {tissue:.0%} of it is on tissue if its coordinates start at the "
        f"slide's corner, {tissue_there:.0%} if they start at the slide's bounds (x {area.x}, y {area.y}), as in "
        "QuPath; set mask_frame=level0 or mask_frame=bounds"
    )
    raise SlideError(msg)


def _check_inside(extent: tuple[float, float, float, float] | None, where: str, ground: MaskGround, frame: str) -> None:
    """Raise SlideError if polygons extend far beyond the slide: they are another slide's, or not in level-0 px."""
    area = ground.area if frame == BOUNDS else ground.slide
    if extent is None or _fits(extent, area):
        return
    left, top, right, bottom = extent
    named = f"the slide is {area.width} x {area.height} px"
    if frame == BOUNDS and any(area.origin):
        named = f"its bounds are {area.width} x {area.height} px at x {area.x}, y {area.y} (mask_frame is bounds)"
    msg = (
        f"{where} spans x {left:.0f} to {right:.0f} and y {top:.0f} to {bottom:.0f}, {named}: it is another slide's "
        "mask, or not in level-0 px"
    )
    raise SlideError(msg)


def _doubts(regions: BaseGeometry, inside: BaseGeometry, where: str, ground: MaskGround) -> list[str]:
    """Return warnings about a mask that is partly beyond the scanned area or mostly on glass; refuse one beyond it."""
    if not regions.area:
        return []
    lost, warnings = 1.0 - inside.area / regions.area, []
    area = ground.area
    if lost > MOSTLY:
        msg = (
            f"{where} has {lost:.0%} of its area outside the scanned part of the slide ({area.width} x {area.height} "
            f"px at x {area.x}, y {area.y}); if its coordinates start there, as in QuPath, set mask_frame=bounds"
        )
        raise SlideError(msg)
    if lost > CLIPPED:
        warnings.append(f"{lost:.0%} of the mask's area is outside the scanned part of the slide, and was cut off")
    on_tissue = _tissue_share(regions, ground)
    if on_tissue < MOSTLY and ground.detected.any():
        warnings.append(
            f"{1 - on_tissue:.0%} of the mask's area is on glass, by the tissue that is detected; check that it is "
            "this slide's mask"
        )
    return warnings


def _tissue_share(regions: BaseGeometry, ground: MaskGround) -> float:
    """Return the share of the regions' area that is on detected tissue."""
    area, (rows, columns) = ground.area, ground.detected.shape
    x = area.x + np.linspace(0.0, area.width, columns + 1)
    y = area.y + np.linspace(0.0, area.height, rows + 1)
    covered = cell_areas(shapely.MultiPolygon(_polygons(regions)), x, y)
    return float(covered[ground.detected].sum()) / float(regions.area)


def _inside_share(regions: BaseGeometry, area: Area) -> float:
    return float(shapely.intersection(regions, _box(area)).area) / float(regions.area)


def _polygons(regions: BaseGeometry) -> list[BaseGeometry]:
    return [one for one in shapely.get_parts(regions) if one.geom_type == "Polygon"]


def _box(area: Area) -> BaseGeometry:
    return shapely.box(area.x, area.y, area.x + area.width, area.y + area.height)


def _moved(extent: tuple[float, float, float, float] | None, area: Area) -> tuple[float, float, float, float] | None:
    if extent is None:
        return None
    left, top, right, bottom = extent
    return left + area.x, top + area.y, right + area.x, bottom + area.y


def _fits(extent: tuple[float, float, float, float] | None, area: Area) -> bool:
    """Return whether an extent is inside an area, but for the overhang."""
    if extent is None:
        return True
    left, top, right, bottom = extent
    across, down = OVERHANG * area.width, OVERHANG * area.height
    return (
        left >= area.x - across
        and top >= area.y - down
        and right <= area.x + area.width + across
        and bottom <= area.y + area.height + down
    )
