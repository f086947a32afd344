"""Masks as QuPath exports them: objects in objects, old names of types, cells beside annotations."""

import json
from typing import Any

import pytest

from raystp.errors import SlideError
from raystp.slides.tissue.geojson import DrawnMask, from_geojson


def square(x: int, y: int, side: int) -> dict[str, Any]:
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    return {"type": "Polygon", "coordinates": [ring]}


def qupath(geometry: dict[str, Any] | None, kind: str, name: str = "objectType", **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": {name: kind, **properties}}


def read(features: Any) -> DrawnMask:
    text = features if isinstance(features, bytes) else json.dumps({"type": "FeatureCollection", "features": features})
    return from_geojson(text if isinstance(text, bytes) else text.encode(), "the mask", width=1000, height=1000)


def nested(levels: int) -> dict[str, Any]:
    """Return an annotation of 100 x 100 px that lies below so many objects without a geometry."""
    found = qupath(square(0, 0, 100), "annotation")
    for _ in range(levels):
        found = qupath(None, "root", childObjects=[found])
    return found


@pytest.mark.parametrize("where", ["properties", "feature"])
def test_objects_inside_objects_are_read_wherever_they_are_listed(where: str) -> None:
    hole = qupath(square(20, 20, 10), "annotation", classification={"name": "Fold*"})
    beyond = qupath(square(200, 0, 10), "annotation", childObjects=[qupath(square(300, 0, 10), "annotation")])
    outer = qupath(square(0, 0, 100), "annotation")
    (outer["properties"] if where == "properties" else outer)["childObjects"] = [hole, beyond]
    assert read([outer]).regions.area == 100 * 100 - 10 * 10 + 2 * 10 * 10


@pytest.mark.parametrize("name", ["objectType", "object_type", "type", "id"])
def test_cells_beside_annotations_are_no_tissue_under_any_name_of_their_type(name: str) -> None:
    kinds = ("PathAnnotationObject", "PathCellObject") if name == "id" else ("annotation", "cell")
    cell = qupath(square(500, 500, 10), kinds[1], name, measurements=[])
    cell["nucleusGeometry"] = square(502, 502, 4)
    outer = qupath(square(0, 0, 100), kinds[0], name, childObjects=[cell, cell])
    if name == "id":
        outer["id"], cell["id"] = outer["properties"].pop("id"), cell["properties"].pop("id")
    found = read([outer, cell])
    assert (found.regions.area, found.left_out) == (100 * 100, 3)


def test_a_file_of_detections_alone_is_a_mask_of_them_without_their_nuclei() -> None:
    tile = qupath(square(0, 0, 100), "tile")
    cell = {**qupath(square(500, 500, 10), "cell"), "nucleusGeometry": square(600, 600, 4)}
    found = read([tile, cell])
    assert (found.regions.area, found.left_out) == (100 * 100 + 10 * 10, 0)


def test_a_damaged_cell_beside_an_annotation_does_no_harm() -> None:
    bow_tie = {"type": "Polygon", "coordinates": [[[0, 0], [90, 90], [90, 0], [0, 90], [0, 0]]]}
    assert read([qupath(square(0, 0, 100), "annotation"), qupath(bow_tie, "cell")]).regions.area == 100 * 100


def test_a_key_that_is_there_twice_is_accepted() -> None:
    geometry = json.dumps(square(0, 0, 100))
    feature = '{"type": "Feature", "geometry": %s, "properties": {"objectType": "annotation", %s, %s}}'
    text = feature % (geometry, '"metadata": {"a": "1"}', '"metadata": {"b": "2"}')
    assert read(text.encode()).regions.area == 100 * 100


@pytest.mark.parametrize("levels", [0, 1, 5, 100])
def test_a_hierarchy_of_any_depth_up_to_the_limit_is_read(levels: int) -> None:
    assert read([nested(levels)]).regions.area == 100 * 100


def test_a_hostile_depth_is_one_sentence() -> None:
    with pytest.raises(SlideError, match=r"^the mask has objects inside objects on more than 100 levels; export the"):
        read([nested(101)])
    open_, close = '{"type":"Feature","geometry":null,"properties":{"childObjects":[', "]}}"
    for levels in (300, 5_000, 100_000):
        text = '{"type":"FeatureCollection","features":[' + open_ * levels + close * levels + "]}"
        with pytest.raises(SlideError, match=r"^the mask (has objects inside objects|nests its values too deeply)"):
            read(text.encode())


@pytest.mark.parametrize("children", [3, "x", {"a": 1}, [3, None, "x"], [{"type": "Feature"}]])
def test_children_that_are_no_objects_are_skipped(children: Any) -> None:
    assert read([qupath(square(0, 0, 100), "annotation", childObjects=children)]).regions.area == 100 * 100
