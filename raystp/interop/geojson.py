"""Outlines of tissue in GeoJSON files of other tools."""

import json
from typing import Any

import shapely
import shapely.geometry
from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry

from raystp.errors import FormatError

MAX_BYTES = 256 << 20
AREAL = ("Polygon", "MultiPolygon")

_COORDINATE_ERRORS = (ShapelyError, ValueError, TypeError, LookupError, AttributeError, OverflowError)


def outlines(content: bytes, where: str) -> BaseGeometry:
    """Return the polygons of a FeatureCollection as one geometry in the file's own frame; invalid ones are repaired.

    A member `crs` is ignored: slides have none. Raises FormatError for a file that is no GeoJSON.
    """
    if len(content) > MAX_BYTES:
        msg = f"{where} has {len(content)} bytes, outlines have at most {MAX_BYTES}"
        raise FormatError(msg)
    try:
        features: Any = json.loads(content)["features"]
        polygons = [shapely.force_2d(shapely.geometry.shape(one["geometry"])) for one in features if _is_areal(one)]
        regions: BaseGeometry = shapely.union_all(shapely.make_valid(polygons))
    except (*_COORDINATE_ERRORS, RecursionError) as error:
        msg = f"{where} is no GeoJSON with polygons ({type(error).__name__}: {error})"
        raise FormatError(msg) from None
    return regions


def as_features(regions: BaseGeometry) -> bytes:
    """Return regions as a FeatureCollection with a feature per polygon, numbered by `tissue_id`."""
    parts = [one for one in shapely.get_parts(shapely.get_parts(regions)) if one.geom_type in AREAL]
    features = [
        {"type": "Feature", "properties": {"tissue_id": number}, "geometry": shapely.geometry.mapping(one)}
        for number, one in enumerate(parts)
    ]
    return json.dumps({"type": "FeatureCollection", "features": features}).encode()


def _is_areal(feature: Any) -> bool:
    return isinstance(feature.get("geometry"), dict) and feature["geometry"].get("type") in AREAL
