"""Outlines of tissue in GeoJSON files of other tools."""

import json
from typing import Any

import shapely
import shapely.geometry
from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry

from raystp.errors import FormatError
from raystp.storage import StoragePath

MAX_BYTES = 256 << 20
"""Bytes of a file of outlines."""
AREAL = ("Polygon", "MultiPolygon")

_COORDINATE_ERRORS = (ShapelyError, ValueError, TypeError, LookupError, AttributeError, OverflowError)


def read_outlines(path: StoragePath) -> BaseGeometry:
    """Return the polygons of a file, whose size is checked before it is read; see `outlines`."""
    _check_size(path.size(), str(path))
    return outlines(path.read_bytes(), str(path))


def _check_size(count: int, where: str) -> None:
    if count > MAX_BYTES:
        msg = f"{where} has {count} bytes, outlines have at most {MAX_BYTES}"
        raise FormatError(msg)


def outlines(content: bytes, where: str) -> BaseGeometry:
    """Return the polygons of a FeatureCollection as one geometry in the file's own frame; invalid ones are repaired.

    A member `crs` is ignored: slides have none. Raises FormatError for a file that is no GeoJSON.
    """
    _check_size(len(content), where)
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
