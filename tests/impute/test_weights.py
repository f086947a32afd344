"""Weights add to 1, whatever the scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raystp.errors import ModelError
from raystp.impute.weights import WEIGHTS, inverse_square, mean, softmax, top1, weighted_average

SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 50))
SCORES = arrays(np.float32, SHAPES, elements=st.floats(-1e6, 1e6, width=32))


@given(scores=SCORES, name=st.sampled_from(sorted(WEIGHTS)))
def test_every_line_of_weights_adds_to_one(scores: np.ndarray, name: str) -> None:
    weights = WEIGHTS[name].compute(scores)
    assert weights.dtype == np.float32
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1, dtype=np.float64), 1.0, atol=1e-5)


def test_with_one_neighbour_the_mean_is_top1() -> None:
    scores = np.array([[0.3], [-2.0]], np.float32)
    assert mean(scores).tolist() == top1(scores).tolist() == [[1], [1]]


def test_bleep_weights_are_those_of_its_formula() -> None:
    d2 = np.array([[1.0, 1.5, 0.25, 4.0]], np.float32)
    formula = np.exp(-(d2 - d2[:, :1] + 1))
    np.testing.assert_allclose(weighted_average(d2), formula / formula.sum(), rtol=1e-6)


@pytest.mark.parametrize("first", [0.0, 1e3, 1e6])
def test_bleep_weights_survive_distances_that_overflow_an_exponential(first: float) -> None:
    # exp(-(d2 - d2_1 + 1)) is infinite here: the nearest by cosine is the farthest by distance.
    d2 = np.array([[first + 1e3, first + 1.0, first]], np.float32)
    e = np.exp(-1.0)
    np.testing.assert_allclose(weighted_average(d2), [[0, e / (1 + e), 1 / (1 + e)]], atol=1e-6)


def test_softmax_goes_from_the_mean_to_top1_as_the_temperature_falls() -> None:
    scores = np.array([[0.9, 0.8, 0.1]], np.float32)
    np.testing.assert_allclose(softmax(scores, 1e6), mean(scores), atol=1e-6)
    np.testing.assert_allclose(softmax(scores, 1e-3), top1(scores), atol=1e-6)
    np.testing.assert_allclose(softmax(scores, 0.5), np.exp(scores / 0.5) / np.exp(scores / 0.5).sum(), rtol=1e-6)
    for temperature in (0.0, -1.0, float("nan")):
        with pytest.raises(ModelError, match="it must be above 0"):
            softmax(scores, temperature)


def test_inverse_square_weights_of_an_exact_hit_are_finite_and_it_takes_all() -> None:
    """Acceptance 5 of mclSTExp."""
    d2 = np.array([[0.0, 1.0, 4.0], [0.0, 0.0, 9.0], [0.0, 0.0, 0.0], [1.0, 4.0, 4.0]], np.float32)
    expected = np.array([[1, 0, 0], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3], [2 / 3, 1 / 6, 1 / 6]])
    np.testing.assert_allclose(inverse_square(d2), expected, atol=1e-6)


def test_inverse_square_weights_do_not_depend_on_the_unit_of_the_distances() -> None:
    d2 = np.array([[0.5, 2.0, 7.0]], np.float32)
    for unit in (1e-18, 1.0, 1e18):
        np.testing.assert_allclose(inverse_square(d2 * np.float32(unit)), inverse_square(d2), rtol=1e-6)
