import io
from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from raystp.evaluate.report.slide_figures import (
    SlideThumbnail,
    colour_limits,
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
    boxes = np.array([[0.0, 500.0, 500.0], [1500.0, 0.0, 500.0]])
    twice = [png(whole_slide_figure(thumbnail(), boxes, np.array([0.0, 5.0]), gene="A"), dpi=40) for _ in range(2)]
    assert twice[0] == twice[1]
