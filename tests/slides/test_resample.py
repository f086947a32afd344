import numpy as np
import pytest
from jaxtyping import Float64

from raystp.slides.resample import Box, resample, wide_window


def triangle(length: int, low: float, high: float, pixels: int) -> Float64[np.ndarray, "pixel source"]:
    """Weights of source pixels in each output pixel: a triangle of one step to either side, a step being at least 1."""
    step = (high - low) / pixels
    centres = low + (np.arange(pixels) + 0.5) * step
    distance = np.abs(np.arange(length) + 0.5 - centres[:, None]) / max(step, 1.0)
    weights = np.clip(1.0 - distance, 0.0, None)
    normal: Float64[np.ndarray, "pixel source"] = weights / weights.sum(axis=1, keepdims=True)
    return normal


@pytest.mark.parametrize(
    ("box", "columns", "rows"),
    [
        (Box(10.0, 12.0, 74.0, 44.0), 32, 16),
        (Box(3.3, 4.7, 67.1, 33.2), 20, 11),
        (Box(8.5, 9.25, 28.5, 29.25), 20, 20),
        (Box(20.0, 20.0, 30.0, 30.0), 35, 35),
    ],
)
def test_resampling_is_a_triangle_filter_within_rounding(box: Box, columns: int, rows: int) -> None:
    source = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    across = triangle(90, box.left, box.right, columns)
    down = triangle(60, box.top, box.bottom, rows)
    wanted = np.einsum("ph,hwc,qw->pqc", down, source.astype(float), across)
    # Rounded to whole values after the rows and again after the columns: twice a half, and the last bits of a float.
    assert np.abs(resample(source, box, columns, rows) - wanted).max() <= 1.0 + 1e-9


def test_its_window_holds_all_that_a_box_needs() -> None:
    source = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    box = Box(20.3, 15.7, 62.1, 40.2)
    region = wide_window(box, 16, 12)
    part = source[region.top : region.top + region.height, region.left : region.left + region.width]
    np.testing.assert_array_equal(
        resample(part, box.moved(-float(region.left), -float(region.top)), 16, 12), resample(source, box, 16, 12)
    )


def test_a_whole_box_of_the_outputs_size_is_a_copy() -> None:
    source = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resample(source, Box(3.0, 4.0, 11.0, 9.0), 8, 5), source[4:9, 3:11])
