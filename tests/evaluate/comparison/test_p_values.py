"""Two-sided p by sign flips and by bootstrap, and Holm's correction, against values counted by hand."""

from itertools import product

import numpy as np
import pytest

from raystp.evaluate.comparison.p_values import EXACT_UNITS, bootstrap_p, holm, sign_flip_p, smallest_p


def flips(*differences: float) -> float | None:
    return sign_flip_p(np.array(differences, float), np.random.default_rng(0))


def test_sign_flips_count_all_assignments_of_signs() -> None:
    assert flips(1, 1, 1) == 2 / 8  # +++ and ---
    assert flips(3, 2, 1, -1) == 6 / 16  # sums at least 5 from 0: 7, 5, 5 and their opposites
    values = [0.3, -0.1, 0.25, 0.05, 0.4]
    sums = [
        abs(sum(sign * one for sign, one in zip(signs, values, strict=True))) for signs in product((1, -1), repeat=5)
    ]
    assert flips(*values) == sum(one >= abs(sum(values)) - 1e-12 for one in sums) / 32


def test_sign_flips_reject_a_true_null_hypothesis_no_more_often_than_they_state() -> None:
    sizes = np.array([0.1, 0.2, 0.35, 0.4, 0.55, 0.8])
    p = np.array([flips(*(sizes * signs)) for signs in product((1, -1), repeat=6)])
    for level in (0.05, 0.1, 0.25, 0.5):
        assert (p <= level).mean() <= level


def test_no_difference_has_p_1_and_the_other_direction_the_same_p() -> None:
    assert flips(0, 0, 0, 0) == 1
    assert flips(0.2, 0.5, -0.1) == flips(-0.2, -0.5, 0.1)
    many = np.random.default_rng(1).normal(0.2, 1, EXACT_UNITS + 6)
    assert sign_flip_p(many, np.random.default_rng(0)) == sign_flip_p(-many, np.random.default_rng(0))
    draws = np.random.default_rng(2).normal(0.5, 1, 500)
    assert bootstrap_p(draws, 20) == bootstrap_p(-draws, 20)
    assert bootstrap_p(np.zeros(200), 20) == 1


def test_random_flips_are_close_to_all_of_them() -> None:
    few = np.random.default_rng(3).normal(0.3, 1, EXACT_UNITS)
    exact = sign_flip_p(few, np.random.default_rng(0))
    more = sign_flip_p(np.append(few, 0.0), np.random.default_rng(0))  # a unit without a difference changes nothing
    assert exact is not None
    assert more == pytest.approx(exact, abs=0.01)


def test_fewer_than_three_units_have_no_p() -> None:
    assert flips(5, 5) is None
    assert bootstrap_p(np.ones(1000), 2) is None
    assert bootstrap_p(np.full(10, np.nan), 20) is None


def test_a_bootstrap_p_is_twice_the_smaller_side_and_not_below_that_of_its_units() -> None:
    assert bootstrap_p(np.array([-1.0] * 10 + [1.0] * 89), 20) == pytest.approx(2 * 11 / 100)
    assert bootstrap_p(np.array([np.nan, *([-1.0] * 10), *([1.0] * 89)]), 20) == pytest.approx(2 * 11 / 100)
    assert bootstrap_p(np.ones(999), 22) == pytest.approx(2 / 1000)
    assert bootstrap_p(np.ones(999), 5) == smallest_p(5) == 2 / 32


def test_holm_multiplies_the_smallest_p_by_all_and_leaves_out_what_has_none() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.04, None, 0.01]) == [0.04, None, 0.02]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []
