import json
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from raystp.errors import SlideError
from raystp.slides.coordinates import Area
from raystp.slides.tissue.frames import MaskGround, place_mask
from raystp.slides.tissue.geojson import MAX_BYTES, from_geojson, to_geojson
from raystp.slides.tissue.regions import outline

WIDTH, HEIGHT = 400, 300
SLIDE = Area(0, 0, WIDTH, HEIGHT)
GROUND = MaskGround(SLIDE, SLIDE, np.ones((30, 40), np.bool_))
SQUARE = [[10, 20], [110, 20], [110, 120], [10, 120], [10, 20]]
HOLE = [[30, 40], [30, 60], [50, 60], [50, 40], [30, 40]]
POLYGON = {"type": "Polygon", "coordinates": [SQUARE, HOLE]}


def feature(geometry: Any, name: Any = None) -> dict[str, Any]:
    """A feature as QuPath exports it."""
    properties: dict[str, Any] = {"objectType": "annotation"}
    if name is not None:
        properties["classification"] = {"name": name, "color": [200, 0, 0]}
    return {"type": "Feature", "id": "0b5b6a5e", "geometry": geometry, "properties": properties}


def collection(*features: Any, **more: Any) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features), **more}


def read(values: Any) -> shapely.MultiPolygon:
    content = values if isinstance(values, bytes) else json.dumps(values).encode()
    where = "the mask A1.geojson"
    return place_mask(from_geojson(content, where, width=WIDTH, height=HEIGHT), where, GROUND, frame="auto").regions


def refused(values: Any) -> str:
    with pytest.raises(SlideError) as caught:
        read(values)
    message = str(caught.value)
    assert message.startswith("the mask A1.geojson")
    assert "\n" not in message
    return message.removeprefix("the mask A1.geojson")


@settings(deadline=None, max_examples=40)
@given(share=st.floats(0, 1), seed=st.integers(0, 999))
def test_a_written_mask_reads_back_equal(*, share: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random((17, 23)) < share
    regions = outline(mask, SLIDE)
    again = read(to_geojson(regions, slide="A1", width=WIDTH, height=HEIGHT, area=SLIDE))
    assert again.area == pytest.approx(regions.area)
    assert shapely.symmetric_difference(again, regions).area < 1e-6


def test_a_written_mask_is_a_collection_of_annotations_with_closed_rings_in_level_0_px() -> None:
    mask = np.zeros((3, 4), np.bool_)
    mask[1, 1:3], mask[0, 0] = True, True
    written = json.loads(to_geojson(outline(mask, SLIDE), slide="A1", width=WIDTH, height=HEIGHT, area=SLIDE))
    assert written["type"] == "FeatureCollection"
    corner, wide = sorted(written["features"], key=lambda one: len(str(one)))
    for one in (corner, wide):
        assert (one["type"], one["geometry"]["type"]) == ("Feature", "Polygon")
        assert one["properties"]["objectType"] == "annotation"
        assert one["properties"]["classification"] == {"name": "Tissue", "color": [0, 160, 60]}
        (ring,) = one["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
    assert {tuple(point) for point in wide["geometry"]["coordinates"][0]} == {
        (100, 100), (300, 100), (300, 200), (100, 200),
    }  # fmt: skip


@pytest.mark.parametrize(
    "values",
    [
        collection(feature(POLYGON)),
        collection(feature(POLYGON, "Tumor"), feature({"type": "Point", "coordinates": [3, 4]}), feature(None)),
        collection(feature({"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE]]})),
        collection(feature({"type": "GeometryCollection", "geometries": [POLYGON]})),
        collection({"type": "Feature", "geometry": POLYGON}),
        [feature(POLYGON, "Stroma")],
        feature(POLYGON),
        POLYGON,
        collection(feature(POLYGON), feature({"type": "Polygon", "coordinates": [[[20, 30], [25, 30], [25, 35]]]})),
        collection(feature({"type": "Polygon", "coordinates": [[[*xy, 0] for xy in ring] for ring in (SQUARE, HOLE)]})),
    ],
)
def test_every_form_of_a_polygon_is_read(values: Any) -> None:
    regions = read(values)
    assert isinstance(regions, shapely.MultiPolygon)
    assert regions.area == 100 * 100 - 20 * 20
    assert regions.bounds == (10, 20, 110, 120)


def test_overlaps_count_once_and_classes_with_a_star_are_cut_out() -> None:
    right = {"type": "Polygon", "coordinates": [[[60, 20], [160, 20], [160, 120], [60, 120], [60, 20]]]}
    square = {"type": "Polygon", "coordinates": [SQUARE]}
    assert read(collection(feature(square), feature(right))).area == 150 * 100
    assert read(collection(feature(square), feature(right, "Ignore*"))).area == 50 * 100
    assert read(collection(feature(right, "Ignore*"))).is_empty
    assert read(collection({**feature(square), "properties": {"classification": "Necrosis*"}})).is_empty
    assert read(collection({**feature(square), "properties": {"classification": {"names": ["a", "b*"]}}})).is_empty


def test_nested_collections_are_read_at_any_depth() -> None:
    text = json.dumps(POLYGON)
    for _ in range(200):
        text = '{"type":"GeometryCollection","geometries":[' + text + "]}"
    assert read(text.encode()).area == 100 * 100 - 20 * 20


def test_no_feature_is_no_tissue() -> None:
    assert read(collection()).is_empty
    assert read(to_geojson(shapely.MultiPolygon(), slide="A1", width=WIDTH, height=HEIGHT, area=SLIDE)).is_empty


def test_a_polygon_over_the_edge_is_clipped() -> None:
    over = {"type": "Polygon", "coordinates": [[[-7, -5], [100, -5], [100, 100], [-7, 100], [-7, -5]]]}
    assert read(over).bounds == (0, 0, 100, 100)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (b"", " is not JSON ("),
        (b"<?xml version='1.0'?>", " is not JSON ("),
        (b"\xff\xfe\x00", " is not JSON ("),
        (b"[" * 100_000, " nests its values too deeply to be read; a mask is GeoJSON in level-0 px"),
        (b" " * (MAX_BYTES + 1), " has 268435457 bytes, a mask has"),
        ({}, " is not GeoJSON but JSON of type dict; expected a FeatureCollection of polygons"),
        (3, " is not GeoJSON but JSON of type int"),
        ({"type": "Topology"}, " is not GeoJSON but a 'Topology'"),
        ({"type": "FeatureCollection"}, " is not GeoJSON but a 'FeatureCollection'"),
        (collection(3), " is not GeoJSON but a 'FeatureCollection'"),
        (
            collection(feature({"type": "Circle"})),
            ": feature 1 of 1 has a geometry of type 'Circle'; allowed are Polygon and",
        ),
        (
            collection(feature(POLYGON), feature({"type": "Polygon"})),
            ": feature 2 of 2 is not a Polygon: its coordinates",
        ),
        (
            feature({"type": "Polygon", "coordinates": [[[1, 2], [3, 4]]]}),
            ": feature 1 of 1 is not a Polygon: its coord",
        ),
        (
            feature({"type": "Polygon", "coordinates": [[["a", 2], [3, 4], [5, 6]]]}),
            ": feature 1 of 1 is not a Polygon",
        ),
        (feature({"type": "MultiPolygon", "coordinates": [SQUARE]}), ": feature 1 of 1 is not a MultiPolygon"),
        (
            b'{"type":"Polygon","coordinates":[[[1,2],[NaN,4],[5,6],[1,2]]]}',
            ": feature 1 of 1 has a coordinate that is",
        ),
        (
            b'{"type":"Polygon","coordinates":[[[1,2],[1e308,4],[5,6],[1,2]]]}',
            ": feature 1 of 1 has the coordinate 1e+308, and no slide has so many px",
        ),
        (
            b'{"type":"Polygon","coordinates":[[[1,2],[1' + b"0" * 400 + b",4],[5,6],[1,2]]]}",
            ": feature 1 of 1 is not a Polygon: its coordinates",
        ),
        (b'{"type":"Polygon","coordinates":[[[1,2],[1e999,4],[5,6],[1,2]]]}', ": feature 1 of 1 has a coordinate that"),
        (
            feature({"type": "Polygon", "coordinates": [[[0, 0], [90, 90], [90, 0], [0, 90], [0, 0]]]}),
            ": feature 1 of 1 is not a valid polygon: Self-intersection[45 45]; repair it there",
        ),
        (
            feature({"type": "LineString", "coordinates": SQUARE}),
            " has 1 features and no polygon among them; draw areas, not lines or points",
        ),
        (
            {"type": "Polygon", "coordinates": [[[500, 20], [900, 20], [900, 80], [500, 20]]]},
            " spans x 500 to 900 and y 20 to 80, the slide is 400 x 300 px: it is another slide's mask, or not in",
        ),
        (
            {"type": "Polygon", "coordinates": [[[5, 20], [409, 20], [409, 80], [5, 20]]]},
            " spans x 5 to 409 and y 20 to 80, the slide is 400 x 300 px",
        ),
        (
            collection(feature(POLYGON), raystp={"slide": "B7", "width": 800, "height": 600}),
            " was made for slide 'B7' of 800 x 600 px, this one is 400 x 300 px: it is another slide's mask",
        ),
    ],
)
def test_a_bad_mask_is_refused_with_the_reason(values: Any, message: str) -> None:
    assert refused(values).startswith(message)
