"""A user's mask is placed in the frame it was drawn in: the whole slide's, or that of the slide's bounds (QuPath)."""

import json
from typing import Any

import numpy as np
import pytest
import shapely

from raystp.errors import SlideError
from raystp.slides.coordinates import Area
from raystp.slides.tissue.frames import MaskGround, PlacedMask, place_mask
from raystp.slides.tissue.geojson import from_geojson, to_geojson
from raystp.slides.tissue.regions import outline

SLIDE = Area(0, 0, 4000, 6000)
BOUNDS = Area(1000, 3000, 1600, 1200)
WHERE = "the mask S1.geojson"


def ground(area: Area = BOUNDS, slide: Area = SLIDE) -> MaskGround:
    """A slide whose tissue is the middle of its scanned area: half of the width and of the height."""
    detected = np.zeros((120, 160), np.bool_)
    detected[30:90, 40:120] = True
    return MaskGround(slide, area, detected)


def box(x: float, y: float, width: float, height: float) -> dict[str, Any]:
    corners = [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]
    return {"type": "Polygon", "coordinates": [corners]}


def place(geometry: dict[str, Any], frame: str = "auto", on: MaskGround | None = None) -> PlacedMask:
    drawn = from_geojson(json.dumps(geometry).encode(), WHERE, width=SLIDE.width, height=SLIDE.height)
    return place_mask(drawn, WHERE, on or ground(), frame=frame)


@pytest.mark.parametrize("frame", ["auto", "bounds"])
def test_a_mask_in_qupaths_frame_is_shifted_by_the_bounds(frame: str) -> None:
    placed = place(box(400, 300, 800, 600), frame)
    assert placed.regions.bounds == (1400, 3300, 2200, 3900)
    assert bool(placed.warnings) == (frame == "auto")
    if placed.warnings:
        assert "shifted by x 1000, y 3000 px (mask_frame=level0" in placed.warnings[0]


@pytest.mark.parametrize("frame", ["auto", "level0"])
def test_a_mask_in_level_0_stays_where_it_is(frame: str) -> None:
    placed = place(box(1400, 3300, 800, 600), frame)
    assert placed.regions.bounds == (1400, 3300, 2200, 3900)
    assert placed.warnings == []


def test_a_mask_that_fits_both_frames_goes_where_the_tissue_is() -> None:
    near = ground(Area(100, 100, 1600, 1200))  # its tissue: x 500 to 1300, y 400 to 1000
    drawn_in_qupath, drawn_in_level_0 = box(390, 290, 820, 620), box(490, 390, 820, 620)
    assert place(drawn_in_qupath, on=near).regions.bounds == (490, 390, 1310, 1010)
    assert place(drawn_in_level_0, on=near).regions.bounds == (490, 390, 1310, 1010)


def test_a_mask_whose_frame_is_not_clear_is_refused_with_the_field_to_set() -> None:
    near = ground(Area(100, 100, 1600, 1200))
    with pytest.raises(
        SlideError, match=r"fits the slide in two frames: .* set mask_frame=level0 or mask_frame=bounds"
    ):
        place(box(700, 500, 100, 100), on=near)
    assert place(box(700, 500, 100, 100), "level0", near).regions.bounds == (700, 500, 800, 600)
    assert place(box(700, 500, 100, 100), "bounds", near).regions.bounds == (800, 600, 900, 700)


def test_a_mask_outside_the_scanned_part_is_refused_and_one_over_its_edge_is_cut_with_a_warning() -> None:
    with pytest.raises(SlideError, match=r"100% of its area outside the scanned part .* set mask_frame=bounds"):
        place(box(200, 300, 700, 600), "level0")
    with pytest.raises(SlideError, match=r"spans x 3000 to 3600 .* its bounds are 1600 x 1200 px"):
        place(box(2000, 300, 600, 600), "bounds")
    placed = place(box(1900, 3300, 900, 600))
    assert placed.regions.bounds == (1900, 3300, 2600, 3900)
    assert "22% of the mask's area is outside the scanned part" in placed.warnings[0]


def test_a_mask_mostly_on_glass_gets_a_warning() -> None:
    whole = MaskGround(SLIDE, SLIDE, ground().detected)
    assert place(box(1000, 1500, 2000, 3000), on=whole).warnings == []
    (warning,) = place(box(0, 0, 1500, 2000), on=whole).warnings
    assert "92% of the mask's area is on glass" in warning
    bare = MaskGround(SLIDE, SLIDE, np.zeros((6, 4), np.bool_))
    assert place(box(0, 0, 1500, 2000), on=bare).warnings == []


@pytest.mark.parametrize("area", [SLIDE, BOUNDS])
def test_a_written_mask_starts_where_qupath_starts_and_reads_back_in_place(area: Area) -> None:
    on = ground(area)
    regions = outline(on.detected, area)
    content = to_geojson(regions, slide="S1", width=SLIDE.width, height=SLIDE.height, area=area)
    written = json.loads(content)
    corner = np.array(written["features"][0]["geometry"]["coordinates"][0]).min(axis=0)
    assert corner.tolist() == [area.width / 4, area.height / 4]
    assert written["raystp"].get("bounds") == (None if area == SLIDE else [1000, 3000, 1600, 1200])
    drawn = from_geojson(content, WHERE, width=SLIDE.width, height=SLIDE.height)
    placed = place_mask(drawn, WHERE, on, frame="auto")
    assert placed.warnings == []
    assert shapely.equals_exact(placed.regions.normalize(), regions.normalize(), 1e-9)


def test_objects_inside_objects_are_read() -> None:
    inner = {"type": "Feature", "geometry": box(1400, 3300, 100, 100), "properties": {"classification": "Fold*"}}
    outer = {"type": "Feature", "geometry": box(1400, 3300, 800, 600), "properties": {}, "childObjects": [inner]}
    assert place({"type": "FeatureCollection", "features": [outer]}).regions.area == 800 * 600 - 100 * 100
