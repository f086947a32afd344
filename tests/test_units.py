"""Lengths of tissue in pixels of a slide, and which scans are read without resampling."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raystp.units import (
    MPP_RANGE,
    Level0Pixels,
    Microns,
    MicronsPerPixel,
    TilePixels,
    is_native,
    is_plausible,
    target_mpp,
    to_level0,
    to_microns,
)

LENGTHS = st.floats(0, 1e6)
SCANS = st.floats(*MPP_RANGE).map(MicronsPerPixel)


def test_a_tile_of_112_um_is_224_px_at_half_a_micron_per_pixel() -> None:
    assert to_level0(Microns(112.0), MicronsPerPixel(0.5)) == Level0Pixels(224)
    assert to_microns(Level0Pixels(224.0), MicronsPerPixel(0.5)) == Microns(112)
    assert target_mpp(Microns(112.0), TilePixels(224)) == 0.5


@given(LENGTHS.map(Microns), SCANS)
def test_a_length_survives_the_conversion_to_pixels_and_back(length: Microns, mpp: MicronsPerPixel) -> None:
    assert to_microns(to_level0(length, mpp), mpp) == pytest.approx(length, rel=1e-12)


@given(LENGTHS.map(Microns), SCANS)
def test_a_finer_scan_has_more_pixels_on_the_same_tissue(length: Microns, mpp: MicronsPerPixel) -> None:
    assert to_level0(length, MicronsPerPixel(mpp / 2)) == pytest.approx(2 * to_level0(length, mpp))


@pytest.mark.parametrize(
    ("mpp", "native"), [(0.5, True), (0.499, True), (0.4951, True), (0.5049, True), (0.494, False), (0.506, False)]
)
def test_a_scan_within_one_percent_of_the_target_is_native(mpp: float, native: bool) -> None:  # noqa: FBT001 -- a table
    assert is_native(MicronsPerPixel(mpp), MicronsPerPixel(0.5)) is native


@pytest.mark.parametrize("mpp", [None, 0.0, -0.5, math.nan, math.inf, 352.8, 0.01])
def test_an_implausible_resolution_is_refused(mpp: float | None) -> None:
    assert not is_plausible(mpp)


@given(SCANS)
def test_every_scan_in_the_range_is_plausible(mpp: MicronsPerPixel) -> None:
    assert is_plausible(mpp)
