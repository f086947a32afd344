import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float64

from raystp.slides.coordinates import Area
from raystp.slides.tissue.regions import cell_areas, outline, rasterize, share_under

Boxes = Float64[np.ndarray, "tile 3"]
seeds = st.integers(0, 9999)


def grid_of(width: int, height: int, side: float, step: float) -> Boxes:
    x, y = np.meshgrid(np.arange(0.0, width, step), np.arange(0.0, height, step))
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, side)], axis=1)


def scribble(rng: np.random.Generator, points: int) -> shapely.MultiPolygon:
    """Return random hand-drawn regions: parts, holes and points outside the slide."""
    ring = shapely.Polygon(rng.uniform(-20, 120, (points, 2)))
    parts = shapely.get_parts(shapely.make_valid(ring))
    return shapely.multipolygons([part for part in parts if part.geom_type == "Polygon"])


@settings(deadline=None, max_examples=60)
@given(seed=seeds, points=st.integers(3, 40), side=st.floats(3, 40), step=st.floats(5, 30))
def test_the_share_of_a_box_is_that_of_the_polygon_clipped_by_it(
    *, seed: int, points: int, side: float, step: float
) -> None:
    regions, boxes = scribble(np.random.default_rng(seed), points), grid_of(100, 80, side, step)
    clips = shapely.box(boxes[:, 0], boxes[:, 1], boxes[:, 0] + side, boxes[:, 1] + side)
    expected = shapely.area(shapely.intersection(regions, clips)) / side**2
    np.testing.assert_allclose(share_under(regions, boxes), expected, atol=1e-10)


@settings(deadline=None, max_examples=40)
@given(seed=seeds, points=st.integers(3, 40))
def test_areas_add_up_to_the_whole_for_any_lines(*, seed: int, points: int) -> None:
    rng = np.random.default_rng(seed)
    regions = scribble(rng, points)
    x, y = (np.unique(np.concatenate([[-30.0, 130.0], rng.uniform(-30, 130, 12)])) for _ in range(2))
    assert cell_areas(regions, x, y).sum() == pytest.approx(regions.area, abs=1e-9)
    assert cell_areas(regions, x, y).min() > -1e-9


@settings(deadline=None, max_examples=60)
@given(rows=st.integers(1, 25), columns=st.integers(1, 25), share=st.floats(0, 1), seed=seeds)
def test_an_outline_covers_exactly_the_mask(*, rows: int, columns: int, share: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random((rows, columns)) < share
    regions = outline(mask, Area(0, 0, 1003, 777))
    assert shapely.is_valid(regions)
    again, part = rasterize(regions, mask.shape, Area(0, 0, 1003, 777))
    np.testing.assert_array_equal(again, mask)
    assert part == pytest.approx(mask.mean())


def test_a_mask_of_nothing_has_no_outline_and_one_of_all_is_the_slide() -> None:
    nothing = outline(np.zeros((3, 4), np.bool_), Area(0, 0, 40, 30))
    assert nothing.is_empty
    assert share_under(nothing, grid_of(40, 30, 10.0, 10.0)).tolist() == [0.0] * 12
    everything = outline(np.ones((3, 4), np.bool_), Area(0, 0, 40, 30))
    assert everything.equals(shapely.box(0, 0, 40, 30))
    assert share_under(everything, grid_of(40, 30, 10.0, 10.0)).tolist() == [1.0] * 12


def test_holes_and_parts_beyond_the_edge_do_not_count() -> None:
    ring = shapely.Polygon([(-5, 0), (20, 0), (20, 10), (-5, 10)], [[(2, 2), (8, 2), (8, 8), (2, 8)]])
    found = share_under(
        shapely.multipolygons([ring]), np.array([[0.0, 0.0, 10.0], [10.0, 0.0, 10.0], [15.0, 5.0, 10.0]])
    )
    assert found == pytest.approx([0.64, 1.0, 0.25])
