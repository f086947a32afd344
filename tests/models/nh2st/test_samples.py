"""NH2ST's samples: a spot with its neighbourhood, optionally smoothed labels, and errors for unfit rows."""

import numpy as np
import pytest
import torch

from raystp.errors import ModelError
from raystp.models.nh2st.samples import NeighbourSamples
from raystp.models.training.samples import SampleSet

FEATURES = torch.arange(12.0).reshape(4, 3)
EXPRESSION = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0]])
ROWS = np.array([[0, 1, 2], [1, 0, 2], [2, 1, 2], [3, 3, 3]])
MASK = np.array([[True, True, True], [True, True, True], [True, True, False], [True, False, False]])


def test_a_sample_is_a_spot_with_its_neighbourhood_in_the_given_order() -> None:
    samples = NeighbourSamples.of(FEATURES, EXPRESSION, ROWS, MASK)
    assert isinstance(samples, SampleSet)
    assert len(samples) == 4
    features, near, expression, near_expression, mask = samples.at(np.array([2, 0]))
    assert torch.equal(features, FEATURES[[2, 0]])
    assert torch.equal(near[0], FEATURES[[2, 1, 2]])
    assert torch.equal(expression, EXPRESSION[[2, 0]])
    assert torch.equal(near_expression[1], EXPRESSION[[0, 1, 2]])
    assert mask.tolist() == [[True, True, False], [True, True, True]]


def test_smoothed_labels_are_the_mean_over_present_nodes_for_spots_and_neighbours() -> None:
    samples = NeighbourSamples.of(FEATURES, EXPRESSION, ROWS, MASK, smooth_labels=True)
    _, _, expression, near_expression, _ = samples.at(np.arange(4))
    torch.testing.assert_close(expression[:, 0], torch.tensor([2.0, 2.0, 2.5, 4.0]))
    torch.testing.assert_close(near_expression[2, :, 0], torch.tensor([2.5, 2.0, 2.5]))
    assert torch.equal(EXPRESSION[0], torch.tensor([1.0, 10.0]))


@pytest.mark.parametrize("side", ["features", "expression"])
def test_nan_is_refused(side: str) -> None:
    features, expression = FEATURES.clone(), EXPRESSION.clone()
    {"features": features, "expression": expression}[side][1, 0] = torch.nan
    with pytest.raises(ModelError, match=f"{side} of 1 of 4 spots hold nan"):
        NeighbourSamples.of(features, expression, ROWS, MASK)


@pytest.mark.parametrize(
    ("rows", "mask", "message"),
    [
        (ROWS[:3], MASK[:3], "one row for each of the same spots"),
        (ROWS, MASK[:, :2], "one row for each of the same spots"),
        (ROWS + 1, MASK, "rows 0 to 3 of the stacked spots, got 1 to 4"),
        (ROWS - 1, MASK, "got -1 to 2"),
        (ROWS[[1, 0, 2, 3]], MASK, "first node of a neighbourhood must be the spot itself"),
        (ROWS, ~MASK, "first node of a neighbourhood must be the spot itself"),
    ],
)
def test_neighbours_that_do_not_fit_the_spots_are_refused(rows: np.ndarray, mask: np.ndarray, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        NeighbourSamples.of(FEATURES, EXPRESSION, rows, mask)
