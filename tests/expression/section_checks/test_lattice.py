import numpy as np
import pytest
from jaxtyping import Float64

from raystp.expression.section_checks.lattice import HEXAGONAL, SQUARE, fit_array

Positions = Float64[np.ndarray, "spot 2"]


def _square(n: int = 8) -> Positions:
    return np.stack(np.meshgrid(np.arange(n), np.arange(n)), axis=-1).reshape(-1, 2).astype(np.float64)


def _rotated(positions: Positions, degrees: float) -> Positions:
    angle = np.deg2rad(degrees)
    return np.asarray(positions @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]))


@pytest.mark.parametrize("degrees", [0, 17, 90, 180, 271])
def test_holes_jitter_and_rotation_do_not_change_the_pitch(degrees: float) -> None:
    rng = np.random.default_rng(0)
    array = _square(15)[rng.random(225) < 0.6]
    xy = _rotated(array * 290.0, degrees) + rng.normal(scale=15, size=array.shape) + 5000
    lattice = fit_array(array, xy, SQUARE)
    assert lattice is not None
    assert lattice.pitch_px == pytest.approx(290, rel=0.005)
    assert not lattice.mirrored


def test_a_hexagonal_array_has_one_pitch_in_both_directions() -> None:
    array = _square(10) * [2, 1] + [0, 0]
    array[:, 0] += array[:, 1] % 2  # odd rows hold odd columns
    xy = array * [0.5 * 280, 3**0.5 / 2 * 280]
    lattice = fit_array(array, xy, HEXAGONAL)
    assert lattice is not None
    assert lattice.pitch_px == pytest.approx(280)


def test_one_misplaced_spot_does_not_move_the_pitch() -> None:
    array = _square()
    xy = array * 100.0
    xy[-1] += 900
    lattice = fit_array(array, xy, SQUARE)
    assert lattice is not None
    assert lattice.pitch_px == pytest.approx(100)


def test_swapped_x_and_y_are_reported_as_mirrored() -> None:
    array = _square()
    lattice = fit_array(array, array[:, ::-1] * 100.0, SQUARE)
    assert lattice is not None
    assert lattice.mirrored


def test_spots_on_a_line_have_no_pitch() -> None:
    array = np.column_stack([np.arange(5.0), np.arange(5.0)])
    assert fit_array(array, array * 100, SQUARE) is None
    assert fit_array(array[:1], array[:1], SQUARE) is None


def test_positions_that_do_not_follow_the_array_are_seen() -> None:
    array = _square()
    stretched = fit_array(array, array * [100.0, 60.0], SQUARE)
    assert stretched is not None
    assert (stretched.longer_px, stretched.shorter_px) == pytest.approx((100, 60))
    assert not stretched.follows
    shuffled = fit_array(array, np.random.default_rng(1).permutation(array) * 100, SQUARE)
    assert shuffled is not None
    assert not shuffled.follows


@pytest.mark.parametrize("share", [0.0, 0.04, 0.10, 0.15])
def test_a_stretch_of_up_to_15_percent_follows_and_is_seen_from_5_percent(share: float) -> None:
    array = _square(12)
    fit = fit_array(array, _rotated(array * [100.0 * (1 - share), 100.0], 30), SQUARE)
    assert fit is not None
    assert fit.follows
    assert fit.stretched == (share > 0.05)


def test_spots_off_their_place_on_the_array_are_counted() -> None:
    array = _square(12)
    xy = array * 100.0
    xy[:7] += [300, 0]
    fit = fit_array(array, xy, SQUARE)
    assert fit is not None
    assert (fit.strays, fit.spots) == (7, 144)
