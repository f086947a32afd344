import io
from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from raystp.evaluate.report.slide_figures import (
    GeneMap,
    SlideThumbnail,
    SpotLayout,
    colour_limits,
    maps_figure,
    png,
    tiles_figure,
    whole_slide_figure,
)
from raystp.units import Level0Pixels

WIDTH, HEIGHT = Level0Pixels(2000.0), Level0Pixels(1000.0)
YELLOW, VIOLET = (253, 231, 37), (68, 1, 84)  # the ends of viridis


def thumbnail() -> SlideThumbnail:
    pixels = np.full((50, 100, 3), 255, dtype=np.uint8)
    pixels[:10, :10] = (255, 0, 0)  # the slide's top-left corner is red
    return SlideThumbnail(pixels, WIDTH, HEIGHT)


def corners() -> tuple[SpotLayout, np.ndarray]:
    """Return spots that fill the slide, high only at the top right."""
    xy = np.stack(np.meshgrid(np.arange(50.0, 2000, 100), np.arange(50.0, 1000, 100)), axis=-1).reshape(-1, 2)
    high = (xy[:, 0] > 1500) & (xy[:, 1] < 300)
    return SpotLayout(xy, Level0Pixels(100.0)), high * 4.0 + 0.001 * np.arange(len(xy)) / len(xy)


def panel(figure: Figure, at: int) -> np.ndarray:
    """Return the pixels of one panel of the PNG."""
    pixels = np.asarray(Image.open(io.BytesIO(png(figure, dpi=100))).convert("RGB"))
    box = figure.axes[at].get_window_extent()
    top = pixels.shape[0] - int(box.y1)
    return pixels[top + 2 : pixels.shape[0] - int(box.y0) - 2, int(box.x0) + 2 : int(box.x1) - 2]


def centre_of(pixels: np.ndarray, colour: tuple[int, int, int]) -> tuple[float, float]:
    """Return the mean position of a colour, as shares of the panel from its left and top."""
    rows, columns = np.nonzero(np.abs(pixels.astype(int) - colour).max(axis=2) < 12)
    return columns.mean() / pixels.shape[1], rows.mean() / pixels.shape[0]


def test_tissue_and_both_maps_have_the_orientation_of_the_slide() -> None:
    spots, values = corners()
    figure = maps_figure(thumbnail(), spots, GeneMap("ERBB2", values, values, 1.0))
    x, y = centre_of(panel(figure, 0), (255, 0, 0))
    assert x < 0.2
    assert y < 0.2
    for at in (1, 2):
        x, y = centre_of(panel(figure, at), YELLOW)
        assert x > 0.8
        assert y < 0.25
        x, y = centre_of(panel(figure, at), VIOLET)
        assert x < 0.6
        assert y > 0.4


def test_all_panels_show_the_same_region_with_y_down_and_one_scale() -> None:
    spots, values = corners()
    figure = maps_figure(
        thumbnail(), SpotLayout(spots.xy[:40], spots.diameter), GeneMap("A", values[:40], values[:40], 1.0)
    )
    for axes in figure.axes[:3]:
        assert axes.yaxis_inverted()
        assert not axes.xaxis_inverted()
        assert axes.get_aspect() == 1.0
        assert axes.get_xlim() == (0.0, 2000.0)
        assert axes.get_ylim() == (350.0, 0.0)


def test_spots_are_drawn_at_their_true_size() -> None:
    spots = SpotLayout(np.array([[500.0, 500.0], [1500.0, 500.0]]), Level0Pixels(200.0))
    values = np.array([1.0, 0.0])
    figure = maps_figure(thumbnail(), spots, GeneMap("A", values, values, 1.0))
    pixels = panel(figure, 1)
    left, right = figure.axes[1].get_xlim()
    per_pixel = (right - left) / pixels.shape[1]
    _, columns = np.nonzero(np.abs(pixels.astype(int) - YELLOW).max(axis=2) < 12)
    assert np.ptp(columns) * per_pixel == pytest.approx(200.0, rel=0.06)


def test_measured_and_predicted_share_their_colour_limits_unless_the_title_states_otherwise() -> None:
    spots, values = corners()
    titles, limits = [], []
    for predicted in (values * 0.9, values * 0.2):
        figure = maps_figure(thumbnail(), spots, GeneMap("A", values, predicted, 1.0))
        titles.append(figure.axes[2].get_title())
        limits.append([axes.collections[0].get_clim() for axes in figure.axes[1:3]])
    assert titles == ["predicted", "predicted (own, narrower colour scale)"]
    assert limits[0][0] == limits[0][1]
    assert limits[1][0][1] > 4 * limits[1][1][1]


def test_colour_bars_state_the_unit() -> None:
    spots, values = corners()
    figure = maps_figure(thumbnail(), spots, GeneMap("A", values, values, 0.5))
    assert [axes.get_ylabel() for axes in figure.axes[3:]] == ["log1p CP10k"] * 2
    assert figure.get_suptitle() == "A   PCC 0.50 over 200 spots"


@pytest.mark.parametrize(
    ("values", "limits"), [([0.0] * 99 + [3.0], (0.0, 3.0)), ([2.0] * 5, (2.0, 3.0)), (range(101), (2.0, 98.0))]
)
def test_colour_limits_are_robust_and_never_empty(values: Sequence[float], limits: tuple[float, float]) -> None:
    assert colour_limits(np.array(values, dtype=float)) == limits


def test_tiles_of_a_whole_slide_are_drawn_at_their_coordinates() -> None:
    boxes = np.array([[0.0, 500.0, 500.0], [1500.0, 0.0, 500.0]])  # bottom left, top right
    figure = whole_slide_figure(thumbnail(), boxes, np.array([0.0, 5.0]), gene="A")
    pixels = panel(figure, 1)
    np.testing.assert_allclose(centre_of(pixels, YELLOW), (0.875, 0.25), atol=0.02)
    np.testing.assert_allclose(centre_of(pixels, VIOLET), (0.125, 0.75), atol=0.02)


def test_maps_of_tiles_are_side_by_side_each_with_its_own_values() -> None:
    boxes = np.array([[0.0, 0.0, 500.0], [1500.0, 0.0, 500.0], [0.0, 500.0, 500.0], [1500.0, 500.0, 500.0]])
    left, top = np.array([1.0, 0.0, 1.0, 0.0]), np.array([1.0, 1.0, 0.0, 0.0])
    figure = tiles_figure(thumbnail(), boxes, {"left": (left, "a"), "top": (top, "b")}, "two maps")
    np.testing.assert_allclose(centre_of(panel(figure, 1), YELLOW), (0.125, 0.5), atol=0.02)
    np.testing.assert_allclose(centre_of(panel(figure, 2), YELLOW)[1], 0.25, atol=0.02)
    assert [at.get_title() for at in figure.axes[:3]] == ["H&E", "left", "top"]


def test_equal_figures_are_equal_bytes() -> None:
    spots, values = corners()
    twice = [png(maps_figure(thumbnail(), spots, GeneMap("A", values, values, 1.0)), dpi=40) for _ in range(2)]
    assert twice[0] == twice[1]
