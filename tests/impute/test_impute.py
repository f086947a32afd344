"""Imputation is a weighted mean, and its spread is a weighted standard deviation."""

from typing import Any

import numpy as np
import pytest

from raystp.errors import ModelError
from raystp.impute.impute import impute, neighbour_spread
from raystp.impute.weights import mean, top1


def toy(queries: int = 1100, k: int = 9, rows: int = 200, genes: int = 31) -> tuple[Any, Any, Any]:
    """Weights that add to 1, rows, expression: more queries than are handled at once."""
    random = np.random.default_rng(0)
    weights = random.random((queries, k), dtype=np.float32)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights, random.integers(0, rows, (queries, k)), random.random((rows, genes), dtype=np.float32) * 5


def test_imputation_is_the_weighted_sum_of_rows() -> None:
    weights, rows, expression = toy()
    true = np.einsum("qk,qkg->qg", weights.astype(np.float64), expression[rows])
    np.testing.assert_allclose(impute(weights, rows, expression), true, rtol=1e-5, atol=1e-5)


def test_halves_of_whole_numbers_come_out_exactly() -> None:
    expression = np.array([[2, 0], [4, 8], [6, 6]], np.float32)
    assert impute(np.full((1, 2), 0.5, np.float32), np.array([[0, 1]]), expression).tolist() == [[3, 4]]


def test_one_averaged_neighbour_is_the_nearest_row_itself() -> None:
    _, rows, expression = toy(k=1)
    scores = np.zeros(rows.shape, np.float32)
    assert np.array_equal(impute(mean(scores), rows, expression), expression[rows[:, 0]])
    assert np.array_equal(impute(mean(scores), rows, expression), impute(top1(scores), rows, expression))


def test_the_average_over_all_rows_is_the_mean_of_the_bank() -> None:
    expression = toy()[2]
    rows = np.stack([np.random.default_rng(seed).permutation(len(expression)) for seed in range(4)])
    predicted = impute(mean(rows.astype(np.float32)), rows, expression)
    np.testing.assert_allclose(predicted, np.tile(expression.mean(axis=0), (4, 1)), rtol=1e-5)


def test_arrays_that_may_only_be_read_give_the_same_answer() -> None:
    given = toy(queries=20)
    free = impute(*given)
    for array in given:
        array.setflags(write=False)
    assert np.array_equal(impute(*given), free)


def test_spread_is_the_weighted_standard_deviation_of_the_neighbours() -> None:
    weights, rows, expression = toy(queries=40)
    true_mean = np.einsum("qk,qkg->qg", weights.astype(np.float64), expression[rows])
    variance = np.einsum("qk,qkg->qg", weights.astype(np.float64), (expression[rows] - true_mean[:, None]) ** 2)
    np.testing.assert_allclose(neighbour_spread(weights, rows, expression), np.sqrt(variance), rtol=1e-4, atol=1e-5)


def test_neighbours_that_agree_have_no_spread_and_those_that_do_not_have_it() -> None:
    expression = np.array([[1, 5], [3, 5]], np.float32)
    half = np.full((1, 2), 0.5, np.float32)
    assert neighbour_spread(half, np.array([[0, 1]]), expression).tolist() == [[1, 0]]
    assert neighbour_spread(top1(half), np.array([[0, 1]]), expression).tolist() == [[0, 0]]


@pytest.mark.parametrize("row", [-1, 3])
def test_a_neighbour_that_is_not_in_the_expression_is_refused(row: int) -> None:
    weights, rows, expression = np.ones((1, 1), np.float32), np.array([[row]]), np.ones((3, 2), np.float32)
    for function in (impute, neighbour_spread):
        with pytest.raises(ModelError, match=f"neighbours are rows {row} to {row}, the expression has rows 0 to 2"):
            function(weights, rows, expression)


def test_no_queries_have_no_predictions() -> None:
    weights, rows = np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int64)
    assert impute(weights, rows, np.ones((3, 2), np.float32)).shape == (0, 2)
