"""Tissue masks as GeoJSON in level-0 px, as QuPath reads and writes them.

A file has a FeatureCollection (or one Feature, a list of them, or a single geometry) of Polygons and MultiPolygons,
with holes. Every polygon counts as tissue, whatever its class. Polygons of a class whose name ends in `*`, which is
QuPath's sign for ignored classes, are cut out. Points and lines have no area and are skipped. A file without features
means a slide without tissue.
"""

import json
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import shapely
import shapely.geometry
from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry

from raystp.errors import SlideError

AREAL = ("Polygon", "MultiPolygon")
WITHOUT_AREA = ("Point", "MultiPoint", "LineString", "MultiLineString")

OVERHANG = 0.02
"""Share of the slide's sides by which a polygon may extend beyond the edge, as a hand-drawn one does; it is clipped."""

MAX_BYTES = 256 << 20
"""A hand-drawn mask has some kilobytes, a model's mask some megabytes; a larger file is not a mask."""

COLOUR = (0, 160, 60)
"""Colour of the class in QuPath."""

_COORDINATE_ERRORS = (ShapelyError, ValueError, TypeError, LookupError, AttributeError)
"""Exceptions that shapely raises on invalid coordinates."""


def to_geojson(regions: shapely.MultiPolygon, *, slide: str, width: int, height: int) -> bytes:
    """Return regions as a FeatureCollection of annotations of the class `Tissue`, one per polygon.

    The slide's id and size are stored too, so that a mask of another slide is detected.
    """
    properties = {"objectType": "annotation", "classification": {"name": "Tissue", "color": list(COLOUR)}}
    features = [
        {"type": "Feature", "geometry": shapely.geometry.mapping(part), "properties": properties}
        for part in shapely.get_parts(regions)
    ]
    about = {"slide": slide, "width": width, "height": height}
    return json.dumps({"type": "FeatureCollection", "raystp": about, "features": features}).encode()


def from_geojson(content: bytes, where: str, *, width: int, height: int) -> shapely.MultiPolygon:
    """Return the regions of a GeoJSON file inside a slide of `width` x `height` level-0 px.

    Raises:
        SlideError: the content is not GeoJSON, belongs to another slide, or has an invalid polygon; the message begins
            with `where`.
    """
    parsed = _parse(content, where)
    _check_size(parsed, where, width, height)
    kept: list[BaseGeometry] = []
    ignored: list[BaseGeometry] = []
    features = _features(parsed, where)
    for number, feature in enumerate(features, 1):
        polygons = list(_polygons(feature.get("geometry"), f"{where}: feature {number} of {len(features)}"))
        (ignored if _is_ignored(feature) else kept).extend(polygons)
    if features and not kept + ignored:
        msg = f"{where} has {len(features)} features and no polygon among them; draw areas, not lines or points"
        raise SlideError(msg)
    _check_inside(kept + ignored, where, width, height)
    regions = shapely.difference(shapely.union_all(kept), shapely.union_all(ignored))
    inside = shapely.intersection(regions, shapely.box(0.0, 0.0, width, height))
    return shapely.MultiPolygon([one for one in shapely.get_parts(inside) if one.geom_type == "Polygon"])


def _parse(content: bytes, where: str) -> object:
    if len(content) > MAX_BYTES:
        msg = f"{where} has {len(content)} bytes, a mask has {MAX_BYTES} at most; simplify it"
        raise SlideError(msg)
    try:
        parsed: object = json.loads(content)
    except (ValueError, RecursionError) as error:
        msg = f"{where} is not JSON ({error}); a mask is GeoJSON in level-0 px, as QuPath exports it"
        raise SlideError(msg) from None
    return parsed


def _features(parsed: object, where: str) -> list[Mapping[str, object]]:
    """Return the features of a FeatureCollection, of a list, or of a single Feature or geometry."""
    kind = parsed.get("type") if isinstance(parsed, dict) else None
    if kind in (*AREAL, *WITHOUT_AREA, "GeometryCollection"):
        return [{"type": "Feature", "geometry": parsed}]
    features: object = parsed
    if isinstance(parsed, dict) and kind == "FeatureCollection":
        features = parsed.get("features")
    elif kind == "Feature":
        features = [parsed]
    if not isinstance(features, list) or not all(isinstance(one, dict) and "geometry" in one for one in features):
        found = f"a {kind!r}" if kind else f"JSON of type {type(parsed).__name__}"
        msg = f"{where} is not GeoJSON but {found}; expected a FeatureCollection of polygons, as QuPath exports it"
        raise SlideError(msg)
    return features


def _is_ignored(feature: Mapping[str, object]) -> bool:
    properties = feature.get("properties")
    classification = properties.get("classification") if isinstance(properties, dict) else None
    if isinstance(classification, dict):
        classification = classification.get("name", classification.get("names"))
    names = classification if isinstance(classification, list) else [classification]
    return any(isinstance(name, str) and name.endswith("*") for name in names)


def _polygons(geometry: object, where: str) -> Iterator[BaseGeometry]:
    """Yield the checked polygons of a geometry, and of all geometries in a collection."""
    pending = [geometry]
    while pending:
        one = pending.pop()
        kind = one.get("type") if isinstance(one, dict) else None
        if isinstance(one, dict) and kind == "GeometryCollection" and isinstance(one.get("geometries"), list):
            pending.extend(one["geometries"])
        elif isinstance(one, dict) and kind in AREAL:
            yield _polygon(one, where)
        elif one is not None and kind not in WITHOUT_AREA:
            msg = f"{where} has a geometry of type {kind!r}; allowed are Polygon and MultiPolygon"
            raise SlideError(msg)


def _polygon(geometry: Mapping[str, object], where: str) -> BaseGeometry:
    try:
        with np.errstate(invalid="ignore"):
            polygon: BaseGeometry = shapely.force_2d(shapely.geometry.shape(geometry))
    except _COORDINATE_ERRORS as error:
        msg = f"{where} is not a {geometry['type']}: its coordinates are not rings of [x, y] pairs ({error})"
        raise SlideError(msg) from None
    if not np.isfinite(shapely.get_coordinates(polygon)).all():
        msg = f"{where} has a coordinate that is not a finite number"
        raise SlideError(msg)
    if not shapely.is_valid(polygon):
        msg = (
            f"{where} is not a valid polygon: {shapely.is_valid_reason(polygon)}; repair it there (x, y in level-0 px)"
        )
        raise SlideError(msg)
    return polygon


def _check_size(parsed: object, where: str, width: int, height: int) -> None:
    about = parsed.get("raystp") if isinstance(parsed, dict) else None
    if isinstance(about, dict) and (about.get("width"), about.get("height")) != (width, height):
        msg = (
            f"{where} was made for slide {about.get('slide')!r} of {about.get('width')} x {about.get('height')} px, "
            f"this one is {width} x {height} px: it is another slide's mask"
        )
        raise SlideError(msg)


def _check_inside(polygons: Iterable[BaseGeometry], where: str, width: int, height: int) -> None:
    """Raise SlideError if polygons extend far beyond the slide: they are another slide's, or not in level-0 px."""
    bounds = shapely.total_bounds(shapely.geometrycollections(list(polygons)))
    if np.isnan(bounds).all():
        return
    left, top, right, bottom = bounds.tolist()
    across, down = OVERHANG * width, OVERHANG * height
    if left < -across or top < -down or right > width + across or bottom > height + down:
        msg = (
            f"{where} spans x {left:.0f} to {right:.0f} and y {top:.0f} to {bottom:.0f}, the slide is {width} x "
            f"{height} px: it is another slide's mask, or not in level-0 px"
        )
        raise SlideError(msg)
