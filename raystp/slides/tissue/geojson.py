"""Tissue masks as GeoJSON, as QuPath reads and writes them; `frames` places them on the slide.

Coordinates are px of level 0. They start at the slide's corner, or at the corner of its bounds where it has any:
QuPath shows the bounds alone. A file has a FeatureCollection (or one Feature, a list of them, or a single geometry) of
Polygons and MultiPolygons, with holes. Every polygon counts as tissue, whatever its class. Polygons of a class whose
name ends in `*`, which is QuPath's sign for ignored classes, are cut out. Points and lines have no area and are
skipped. A file without features means a slide without tissue. Objects inside other objects count too: QuPath exports a
hierarchy as `childObjects`, of the feature or of its properties. Where a file has annotations, the cells and detections
beside them are no tissue of their own and are left out; a cell's nucleus (`nucleusGeometry`) is never read.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import shapely
import shapely.geometry
from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry

from raystp.errors import LONGEST, SlideError, quoted
from raystp.slides.coordinates import Area

AREAL = ("Polygon", "MultiPolygon")
WITHOUT_AREA = ("Point", "MultiPoint", "LineString", "MultiLineString")

LEVEL0, BOUNDS = "level0", "bounds"
"""Frames of a mask: coordinates start at the slide's corner, or at the corner of its bounds."""

MAX_BYTES = 256 << 20
"""A hand-drawn mask has some kilobytes, a model's mask some megabytes; a larger file is not a mask."""

MAX_COORDINATE = 1e9
"""No slide has more px along a side; the geometry of larger numbers overflows."""

MAX_NESTED = 100
"""Levels of objects inside objects; QuPath's hierarchy of a slide has about 5."""

TYPE_NAMES = ("objectType", "object_type", "type")
"""QuPath's names of an object's type, the newest first."""

ANNOTATIONS = frozenset({"annotation", "pathannotationobject", "tma_core", "tmacoreobject"})
DETECTED = frozenset({"detection", "cell", "tile", "pathdetectionobject", "pathcellobject", "pathtileobject"})
"""Types of objects that a program detects, in their newer and older spelling, in lower case."""

COLOUR = (0, 160, 60)
"""Colour of the class in QuPath."""

_COORDINATE_ERRORS = (ShapelyError, ValueError, TypeError, LookupError, AttributeError, OverflowError)
"""Exceptions that shapely raises on invalid coordinates."""


@dataclass(frozen=True)
class DrawnMask:
    """The polygons of a file, in the file's own frame."""

    regions: BaseGeometry
    """Without the ignored ones."""
    extent: tuple[float, float, float, float] | None
    """Left, top, right and bottom of all polygons; None without any."""
    frame: str | None
    """`level0` or `bounds`, where the file states it."""
    left_out: int = 0
    """Number of cells and detections beside annotations."""


def to_geojson(regions: shapely.MultiPolygon, *, slide: str, width: int, height: int, area: Area) -> bytes:
    """Return regions as a FeatureCollection of annotations of the class `Tissue`, one per polygon.

    Coordinates start at the corner of `area`, the slide's bounds, as QuPath shows them. The slide's id, its size and
    the frame are stored too, so that a mask of another slide is detected.
    """
    properties = {"objectType": "annotation", "classification": {"name": "Tissue", "color": list(COLOUR)}}
    if any(area.origin):
        regions = shapely.transform(regions, lambda xy: xy - area.origin)
    features = [
        {"type": "Feature", "geometry": shapely.geometry.mapping(part), "properties": properties}
        for part in shapely.get_parts(regions)
    ]
    about: dict[str, object] = {"slide": slide, "width": width, "height": height}
    if any(area.origin):
        about |= {"frame": BOUNDS, "bounds": [*area.origin, area.width, area.height]}
    return json.dumps({"type": "FeatureCollection", "raystp": about, "features": features}).encode()


def from_geojson(content: bytes, where: str, *, width: int, height: int) -> DrawnMask:
    """Return the polygons of a GeoJSON file that was drawn on a slide of `width` x `height` level-0 px.

    Raises:
        SlideError: the content is not GeoJSON, states another slide, or has an invalid polygon; the message begins
            with `where`.
    """
    parsed = _parse(content, where)
    about = parsed.get("raystp") if isinstance(parsed, dict) else None
    _check_size(about, where, width, height)
    kept: list[BaseGeometry] = []
    ignored: list[BaseGeometry] = []
    all_features = _features(parsed, where)
    features = _without_detections(all_features)
    for number, feature in enumerate(features, 1):
        polygons = list(_polygons(feature.get("geometry"), f"{where}: feature {number} of {len(features)}"))
        (ignored if _is_ignored(feature) else kept).extend(polygons)
    if features and not kept + ignored:
        msg = f"{where} has {len(features)} features and no polygon among them; draw areas, not lines or points"
        raise SlideError(msg)
    left, top, right, bottom = shapely.total_bounds(shapely.geometrycollections([*kept, *ignored])).tolist()
    return DrawnMask(
        regions=shapely.difference(shapely.union_all(kept), shapely.union_all(ignored)),
        extent=None if np.isnan(left) else (left, top, right, bottom),
        frame=_stated_frame(about),
        left_out=len(all_features) - len(features),
    )


def _stated_frame(about: object) -> str | None:
    """Return the frame of a mask that raystp wrote; those of earlier versions have no field and are in level 0."""
    if not isinstance(about, dict):
        return None
    return BOUNDS if about.get("frame") == BOUNDS else LEVEL0


def _parse(content: bytes, where: str) -> object:
    if len(content) > MAX_BYTES:
        msg = f"{where} has {len(content)} bytes, a mask has {MAX_BYTES} at most; simplify it"
        raise SlideError(msg)
    try:
        parsed: object = json.loads(content)
    except RecursionError:
        msg = f"{where} nests its values too deeply to be read; a mask is GeoJSON in level-0 px, as QuPath exports it"
        raise SlideError(msg) from None
    except ValueError as error:
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
        found = f"a {quoted(str(kind))}" if kind else f"JSON of type {type(parsed).__name__}"
        msg = f"{where} is not GeoJSON but {found}; expected a FeatureCollection of polygons, as QuPath exports it"
        raise SlideError(msg)
    return list(_with_children(features, where))


def _with_children(features: list[Mapping[str, object]], where: str) -> Iterator[Mapping[str, object]]:
    """Yield the features, and those that are stored inside them; raise SlideError beyond `MAX_NESTED` levels."""
    pending = [(feature, 0) for feature in features[::-1]]
    while pending:
        feature, level = pending.pop()
        if level > MAX_NESTED:
            msg = f"{where} has objects inside objects on more than {MAX_NESTED} levels; export the outer ones alone"
            raise SlideError(msg)
        yield feature
        pending.extend((child, level + 1) for child in _children(feature)[::-1])


def _children(feature: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Return the objects inside one; those of a TMA grid or a root may have no geometry of their own."""
    properties = feature.get("properties")
    holders = [feature, properties] if isinstance(properties, dict) else [feature]
    listed = [children for one in holders if isinstance(children := one.get("childObjects"), list)]
    return [child for children in listed for child in children if isinstance(child, dict)]


def _without_detections(features: list[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """Return the features without cells and other detections, if there are annotations among them."""
    types = [_object_type(feature) for feature in features]
    if not ANNOTATIONS.intersection(types):
        return features
    return [feature for feature, kind in zip(features, types, strict=True) if kind not in DETECTED]


def _object_type(feature: Mapping[str, object]) -> str:
    """Return the type of an object in lower case; empty where the file states none.

    Older files have it in `properties`, under another name, or as the `id` of the feature.
    """
    properties = feature.get("properties")
    stated = [properties.get(name) for name in TYPE_NAMES] if isinstance(properties, dict) else []
    return next((kind.casefold() for kind in [*stated, feature.get("id")] if isinstance(kind, str)), "")


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
            msg = f"{where} has a geometry of type {quoted(str(kind))}; allowed are Polygon and MultiPolygon"
            raise SlideError(msg)


def _polygon(geometry: Mapping[str, object], where: str) -> BaseGeometry:
    try:
        with np.errstate(invalid="ignore"):
            polygon: BaseGeometry = shapely.force_2d(shapely.geometry.shape(geometry))
    except _COORDINATE_ERRORS as error:
        msg = f"{where} is not a {geometry['type']}: its coordinates are not rings of [x, y] pairs ({error})"
        raise SlideError(msg) from None
    coordinates = shapely.get_coordinates(polygon)
    if not np.isfinite(coordinates).all():
        msg = f"{where} has a coordinate that is not a finite number"
        raise SlideError(msg)
    largest = float(np.abs(coordinates).max(initial=0.0))
    if largest > MAX_COORDINATE:
        msg = f"{where} has the coordinate {largest:g}, and no slide has so many px; repair it there"
        raise SlideError(msg)
    if not shapely.is_valid(polygon):
        msg = (
            f"{where} is not a valid polygon: {shapely.is_valid_reason(polygon)}; repair it there (x, y in level-0 px)"
        )
        raise SlideError(msg)
    return polygon


def _check_size(about: object, where: str, width: int, height: int) -> None:
    if isinstance(about, dict) and (about.get("width"), about.get("height")) != (width, height):
        of = f"{quoted(str(about.get('slide')))} of {_short(about, 'width')} x {_short(about, 'height')} px"
        msg = f"{where} was made for slide {of}, this one is {width} x {height} px: it is another slide's mask"
        raise SlideError(msg)


def _short(about: Mapping[str, object], name: str) -> str:
    return str(about.get(name))[:LONGEST]
