import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from raystp.slides.tissue.morphology import close_gaps, dilate, mean_3x3, small_parts


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 30), columns=st.integers(1, 30), share=st.floats(0, 1), smallest=st.integers(0, 40),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_small_parts_are_the_connected_parts_below_a_size(
    *, rows: int, columns: int, share: float, smallest: int, seed: int
) -> None:
    mask = np.random.default_rng(seed).random((rows, columns)) < share
    labels, _ = ndimage.label(mask)
    small = np.bincount(labels.ravel()) < smallest
    small[0] = False
    np.testing.assert_array_equal(small_parts(mask, float(smallest)), small[labels])


@settings(deadline=None, max_examples=60)
@given(rows=st.integers(1, 30), columns=st.integers(1, 30), reach=st.integers(0, 12), seed=st.integers(0, 99))
def test_dilation_and_closing_are_those_of_a_square(*, rows: int, columns: int, reach: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((rows, columns)) < 0.05
    square = np.ones((2 * reach + 1,) * 2, np.bool_)
    np.testing.assert_array_equal(dilate(mask, reach), ndimage.binary_dilation(mask, square))
    there = np.pad(mask, reach)
    expected = ndimage.binary_erosion(ndimage.binary_dilation(there, square), square, border_value=1)
    np.testing.assert_array_equal(close_gaps(mask, reach), expected[reach : reach + rows, reach : reach + columns])
    assert close_gaps(mask, reach)[mask].all()


def test_the_mean_is_over_nine_pixels() -> None:
    spot = np.zeros((5, 5), np.uint8)
    spot[2, 2] = 90
    assert mean_3x3(spot)[1:4, 1:4].tolist() == [[10] * 3] * 3
    assert mean_3x3(spot).sum() == 90
