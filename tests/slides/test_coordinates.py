import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Bool, Float64

from raystp.errors import SlideError
from raystp.slides.coordinates import Area, TileGeometry, boxes_around, grid_boxes, spots_inside
from raystp.units import Microns, MicronsPerPixel, TilePixels

Boxes = Float64[np.ndarray, "tile 3"]


def geometry(tile_um: float, tile_px: int, mpp: float) -> TileGeometry:
    return TileGeometry(Microns(tile_um), TilePixels(tile_px), MicronsPerPixel(mpp))


def grid_of(
    mask: Bool[np.ndarray, "row col"], tiling: TileGeometry, size: tuple[int, int] | Area, **options: float
) -> Boxes:
    values = SimpleNamespace(**{"stride": None, "min_tissue": 0.0} | options)
    area = size if isinstance(size, Area) else Area(0, 0, *size)
    stride = None if values.stride is None else Microns(values.stride)
    return grid_boxes(mask, tiling, area, stride=stride, min_tissue=values.min_tissue)


def test_a_box_is_around_its_centre_at_the_exact_scale() -> None:
    boxes = boxes_around(np.array([[500.25, 300.0]]), geometry(112.0, 224, 0.25))
    assert boxes.tolist() == [[276.25, 76.0, 448.0]]


def test_a_native_box_is_whole_pixels_from_a_whole_corner() -> None:
    centres = np.array([[500.25, 300.5], [500.75, 299.5]])
    for mpp in (0.5, 0.499, 0.5049):
        assert boxes_around(centres, geometry(112.0, 224, mpp)).tolist() == [[388, 189, 224], [389, 188, 224]]
    assert boxes_around(centres, geometry(112.0, 224, 0.506))[0, 2] == pytest.approx(112 / 0.506)


def test_many_spots_outside_their_slide_are_refused_and_named_with_their_coordinates() -> None:
    centres = np.array([[10.0, 10.0], [99.0, 49.0], [100.0, 10.0], [-0.5, 3.0], [np.nan, 3.0], *[[5.0, 70.0]] * 4])
    spots = [f"{i}x{i}" for i in range(9)]
    assert spots_inside("A1", spots[:2], centres[:2], width=100, height=50).all()
    message = (
        "slide 'A1' is 100 x 50 px (columns x rows), and 7 of 9 spots (77.8%, allowed are 2%) have their centre "
        "outside it: '2x2 (x 100.0, y 10.0)', '3x3 (x -0.5, y 3.0)', '4x4 (x nan, y 3.0)', '5x5 (x 5.0, y 70.0)', "
        "'6x6 (x 5.0, y 70.0)' and 2 more; check that this is the image of these spots"
    )
    with pytest.raises(SlideError, match=f"^{re.escape(message)}"):
        spots_inside("A1", spots, centres, width=100, height=50)


@pytest.mark.parametrize(("outside", "is_allowed"), [(0, True), (1, True), (2, True), (3, False)])
def test_up_to_two_percent_of_the_spots_may_be_outside_and_only_they_are_lost(
    outside: int, *, is_allowed: bool
) -> None:
    centres = np.full((100, 2), 20.0)
    centres[:outside] = -3.0, 20.0
    spots = [str(i) for i in range(100)]
    if is_allowed:
        inside = spots_inside("A1", spots, centres, width=100, height=50)
        assert np.flatnonzero(~inside).tolist() == list(range(outside))
    else:
        with pytest.raises(SlideError, match="3 of 100 spots"):
            spots_inside("A1", spots, centres, width=100, height=50)


def test_the_likely_cause_of_spots_outside_is_named() -> None:
    with pytest.raises(SlideError, match="with x and y swapped all are inside"):
        spots_inside("A1", ["a", "b"], np.array([[10.0, 90.0], [20.0, 20.0]]), width=100, height=50)
    with pytest.raises(SlideError, match=r"they reach 4 times the slide's size: .* pixels of a larger image"):
        spots_inside("A1", ["a", "b"], np.array([[400.0, 90.0], [20.0, 20.0]]), width=100, height=50)


def test_a_grid_over_a_part_of_a_slide_has_the_tiles_of_the_whole_slide_that_touch_it() -> None:
    tiling = geometry(5.0, 10, 0.5)
    whole = np.zeros((60, 90), np.bool_)
    whole[23:41, 35:72] = True
    part = Area(33, 21, 45, 25)
    expected = grid_of(whole, tiling, (90, 60), min_tissue=0.3)
    cut = whole[part.y : part.y + part.height, part.x : part.x + part.width]
    assert grid_of(cut, tiling, part, min_tissue=0.3).tolist() == expected.tolist() != []
    everywhere = grid_of(cut, tiling, part)
    assert everywhere[:, :2].tolist() == [[x, y] for y in (20, 30, 40) for x in (30, 40, 50, 60, 70)]


@settings(deadline=None, max_examples=40)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    mpp=st.sampled_from([0.25, 0.5, 0.502, 0.7]),
    pixels=st.integers(4, 40),
)
def test_without_a_stride_each_pixel_lies_in_one_tile(width: int, height: int, mpp: float, pixels: int) -> None:
    boxes = grid_of(np.zeros((3, 5), np.bool_), geometry(pixels * 0.5, pixels, mpp), (width, height))
    column, row = np.arange(width) + 0.5, np.arange(height) + 0.5
    times = np.zeros((height, width), int)
    for x, y, side in boxes.tolist():
        times += ((row >= y) & (row < y + side))[:, None] & ((column >= x) & (column < x + side))[None, :]
    assert (times == 1).all()


def test_tiles_come_row_by_row_from_the_left() -> None:
    boxes = grid_of(np.ones((2, 2), np.bool_), geometry(5.0, 10, 0.5), (25, 20))
    assert boxes.tolist() == [[x, y, 10] for y in (0, 10) for x in (0, 10, 20)]


def test_a_stride_leaves_gaps_or_overlaps() -> None:
    mask = np.ones((2, 2), np.bool_)
    assert grid_of(mask, geometry(5.0, 10, 0.5), (20, 10), stride=2.5)[:, 0].tolist() == [0, 5, 10, 15, 0, 5, 10, 15]
    assert grid_of(mask, geometry(5.0, 10, 0.5), (40, 5), stride=10.0)[:, 0].tolist() == [0, 20]
    with pytest.raises(SlideError, match=r"stride is -1\.0 um"):
        grid_of(mask, geometry(5.0, 10, 0.5), (20, 10), stride=-1.0)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), mpp=st.sampled_from([0.25, 0.5, 0.7]), least=st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_tiles_have_the_requested_share_of_tissue(seed: int, mpp: float, least: float) -> None:
    # The mask is at the slide's own pixels in the oracle, and 4 times coarser in the call: the same tissue.
    rng = np.random.default_rng(seed)
    mask = rng.random((7, 9)) < 0.6
    fine = mask.repeat(8, axis=0).repeat(8, axis=1)  # 2 cells per level-0 px
    tiling = geometry(3.5, 7, mpp)
    everywhere = grid_of(mask, tiling, (36, 28))
    edges_x, edges_y = np.arange(72) / 2, np.arange(56) / 2
    shares = []
    for x, y, side in everywhere.tolist():
        across = np.clip(np.minimum(edges_x + 0.5, x + side) - np.maximum(edges_x, x), 0, None)
        down = np.clip(np.minimum(edges_y + 0.5, y + side) - np.maximum(edges_y, y), 0, None)
        shares.append(down @ fine @ across / side**2)
    sure = np.abs(np.array(shares) - least) > 1e-7
    kept = {tuple(box) for box in grid_of(mask, tiling, (36, 28), min_tissue=least).tolist()}
    for box, share, clear in zip(everywhere.tolist(), shares, sure.tolist(), strict=True):
        if clear:
            assert (tuple(box) in kept) == (share > least)


def test_a_tile_fully_on_tissue_has_a_share_of_one_and_a_tile_over_the_edge_has_less() -> None:
    boxes = grid_of(np.ones((13, 17), np.bool_), geometry(3.5, 7, 0.7), (23, 23), min_tissue=1.0)
    assert boxes[:, :2].tolist() == [[x, y] for y in (0, 5, 10, 15) for x in (0, 5, 10, 15)]


def test_a_slide_without_tissue_has_no_tiles() -> None:
    assert grid_of(np.zeros((5, 5), np.bool_), geometry(5.0, 10, 0.5), (50, 50), min_tissue=0.01).shape == (0, 3)
