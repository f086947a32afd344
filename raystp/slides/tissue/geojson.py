"""A slide's mask as GeoJSON in level-0 px, as QuPath writes and reads it: what to look at, and what to leave out.

A file holds a FeatureCollection (or one Feature, a list of them, or a bare geometry) of Polygons and MultiPolygons,
holes and all. Every polygon counts as tissue, whatever its class; those of a class whose name ends in `*`, which is how
QuPath marks what it ignores, are cut out. Points and lines have no area and count for nothing. No feature at all is a
slide without tissue.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import shapely
import shapely.geometry
from shapely.errors import ShapelyError

from raystp.errors import SlideError

AREAL = ("Polygon", "MultiPolygon")
WITHOUT_AREA = ("Point", "MultiPoint", "LineString", "MultiLineString")

OVERHANG = 0.02
"""Share of the slide's sides by which a polygon may hang over the edge, as a stroke by hand does; it is cut off."""

MAX_BYTES = 256 << 20
"""A mask by hand has some kilobytes, one of a model some megabytes; a larger file is no mask."""

COLOUR = (0, 160, 60)
"""How QuPath shows the class."""

_FAULTS = (ShapelyError, ValueError, TypeError, LookupError, AttributeError)
"""What shapely raises on coordinates that are none."""


def to_geojson(regions: shapely.MultiPolygon, *, slide: str, width: int, height: int) -> bytes:
    """Return regions as a FeatureCollection of annotations of the class `Tissue`, one a polygon.

    The slide's id and size stand beside them, so that the mask of another slide is found out.
    """
    properties = {"objectType": "annotation", "classification": {"name": "Tissue", "color": list(COLOUR)}}
    features = [
        {"type": "Feature", "geometry": shapely.geometry.mapping(part), "properties": properties}
        for part in shapely.get_parts(regions)
    ]
    about = {"slide": slide, "width": width, "height": height}
    return json.dumps({"type": "FeatureCollection", "raystp": about, "features": features}).encode()


def from_geojson(content: bytes, where: str, *, width: int, height: int) -> shapely.MultiPolygon:
    """Return the regions that a GeoJSON names, within a slide of `width` x `height` level-0 px.

    Raises SlideError, beginning with `where`, for what is no GeoJSON, not of this slide, or no proper polygon.
    """
    whole = _parsed(content, where)
    _check_size(whole, where, width, height)
    kept: list[Any] = []
    ignored: list[Any] = []
    features = _features(whole, where)
    for number, feature in enumerate(features, 1):
        polygons = list(_polygons(feature.get("geometry"), f"{where}: feature {number} of {len(features)}"))
        (ignored if _is_ignored(feature) else kept).extend(polygons)
    if features and not kept + ignored:
        msg = f"{where} has {len(features)} features and no polygon among them; draw areas, lines have no inside"
        raise SlideError(msg)
    _check_inside(kept + ignored, where, width, height)
    regions = shapely.difference(shapely.union_all(kept), shapely.union_all(ignored))
    inside = shapely.intersection(regions, shapely.box(0.0, 0.0, width, height))
    return shapely.MultiPolygon([one for one in shapely.get_parts(inside) if one.geom_type == "Polygon"])


def _parsed(content: bytes, where: str) -> Any:
    if len(content) > MAX_BYTES:
        msg = f"{where} has {len(content)} bytes, more than the {MAX_BYTES} that a mask may have; simplify it"
        raise SlideError(msg)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        msg = f"{where} is not JSON ({error}); a mask is GeoJSON in level-0 px, as QuPath exports it"
        raise SlideError(msg) from None


def _features(whole: Any, where: str) -> list[dict[str, Any]]:
    """Return the features of a FeatureCollection, of a list, or of a Feature or geometry by itself."""
    kind = whole.get("type") if isinstance(whole, dict) else None
    if kind in (*AREAL, *WITHOUT_AREA, "GeometryCollection"):
        return [{"type": "Feature", "geometry": whole}]
    features = whole.get("features") if kind == "FeatureCollection" else [whole] if kind == "Feature" else whole
    if not isinstance(features, list) or not all(isinstance(one, dict) and "geometry" in one for one in features):
        seen = f"a {kind!r}" if kind else f"JSON of another kind, a {type(whole).__name__}"
        msg = f"{where} is not GeoJSON but {seen}; a FeatureCollection of polygons was wanted, as QuPath exports it"
        raise SlideError(msg)
    return features


def _is_ignored(feature: dict[str, Any]) -> bool:
    properties = feature.get("properties")
    classed = properties.get("classification") if isinstance(properties, dict) else None
    named = classed.get("name", classed.get("names")) if isinstance(classed, dict) else classed
    names: Sequence[Any] = named if isinstance(named, list) else [named]
    return any(isinstance(name, str) and name.endswith("*") for name in names)


def _polygons(geometry: Any, where: str) -> Iterator[Any]:
    """Yield the checked polygons of a geometry, and of those that it collects."""
    waiting = [geometry]
    while waiting:
        one = waiting.pop()
        kind = one.get("type") if isinstance(one, dict) else None
        if kind == "GeometryCollection" and isinstance(one.get("geometries"), list):
            waiting.extend(one["geometries"])
        elif kind in AREAL:
            yield _polygon(one, where)
        elif one is not None and kind not in WITHOUT_AREA:
            msg = f"{where} has a geometry of type {kind!r}; Polygon and MultiPolygon are known"
            raise SlideError(msg)


def _polygon(geometry: dict[str, Any], where: str) -> Any:
    try:
        with np.errstate(invalid="ignore"):
            polygon = shapely.force_2d(shapely.geometry.shape(geometry))
    except _FAULTS as error:
        msg = f"{where} is no {geometry['type']}: its coordinates are not rings of [x, y] pairs ({error})"
        raise SlideError(msg) from None
    if not np.isfinite(shapely.get_coordinates(polygon)).all():
        msg = f"{where} has a coordinate that is no number"
        raise SlideError(msg)
    if not shapely.is_valid(polygon):
        msg = f"{where} is no proper polygon: {shapely.is_valid_reason(polygon)}; mend it there (x, y in level-0 px)"
        raise SlideError(msg)
    return polygon


def _check_size(whole: Any, where: str, width: int, height: int) -> None:
    about = whole.get("raystp") if isinstance(whole, dict) else None
    if isinstance(about, dict) and (about.get("width"), about.get("height")) != (width, height):
        msg = (
            f"{where} was made for slide {about.get('slide')!r} of {about.get('width')} x {about.get('height')} px, "
            f"this one is {width} x {height} px: it is another slide's mask"
        )
        raise SlideError(msg)


def _check_inside(polygons: Iterable[Any], where: str, width: int, height: int) -> None:
    """Raise SlideError where polygons hang far over the slide's edge: another slide's, or not in level-0 px."""
    every = shapely.total_bounds(shapely.geometrycollections(list(polygons)))
    if np.isnan(every).all():
        return
    left, top, right, bottom = every.tolist()
    across, down = OVERHANG * width, OVERHANG * height
    if left < -across or top < -down or right > width + across or bottom > height + down:
        msg = (
            f"{where} spans x {left:.0f} to {right:.0f} and y {top:.0f} to {bottom:.0f}, the slide is {width} x "
            f"{height} px: it is another slide's mask, or not in level-0 px"
        )
        raise SlideError(msg)
