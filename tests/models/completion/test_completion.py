"""Completion replaces missing entries only, from the section itself."""

import numpy as np
import pytest
from jaxtyping import Float32, Float64

from raystp.errors import ModelError
from raystp.models.completion.linear import fit_linear, open_linear
from raystp.models.completion.median import MedianCompletion
from raystp.models.completion.methods import Completion
from raystp.models.completion.options import LinearOptions, SpackleOptions
from raystp.models.completion.spackle import fit_spackle, open_spackle
from raystp.models.completion.values import (
    SectionValues,
    mean_of_real,
    nearest_spots,
    neighbour_graph,
    real_share,
    touching,
)

OPTIONS = SpackleOptions(neighbours=6, layers=1, feedforward=64, batch_size=64, steps=150)


def _grid(side: int) -> Float64[np.ndarray, "spot 2"]:
    return np.array([[column, row] for row in range(side) for column in range(side)], np.float64)


def _planted(side: int, seed: int) -> tuple[SectionValues, Float32[np.ndarray, "spot gene"]]:
    """Return a section whose 12 genes are two smooth fields and noise, with 30 % missing, and its truth."""
    xy, rng = _grid(side), np.random.default_rng(seed)
    fields = np.c_[np.sin(xy[:, 0] / 4), np.cos(xy[:, 1] / 5)]
    loadings = np.random.default_rng(0).normal(size=(2, 12))
    truth = np.maximum(fields @ loadings + 3 + rng.normal(size=(len(xy), 12)) * 0.2, 0.1).astype(np.float32)
    return SectionValues(np.where(rng.random(truth.shape) < 0.3, 0, truth).astype(np.float32), xy), truth


def test_the_median_grows_until_it_is_above_zero() -> None:
    values = np.zeros((16, 3), np.float32)
    values[[0, 1, 4], 0] = 2, 3, 4  # a corner and two of its neighbours: most of any neighbourhood is 0
    values[15, 1] = 7  # one spot far from most
    values[[1, 4, 6, 9, 0], 2] = 1, 2, 3, 4, 5
    filled = MedianCompletion().complete(SectionValues(values, _grid(4)))
    assert filled[0, 0] == 2
    assert filled[5, 0] == 3  # the fall-back: the median of the real values 2, 3, 4
    assert (filled[:15, 1] == 7).all()
    assert filled[5, 2] == 1  # of 0, 0, 0, 0, 1, 2, 3, 4, 5: the spot, its sides and its corners
    assert filled[15, 2] == 3  # 0 in 1 hop (0, 0, 0, 0), in 2 (of 9) and in 3 (of 16): the median of 1 to 5


def test_a_gene_without_any_count_stays_zero_in_the_median() -> None:
    assert not MedianCompletion().complete(SectionValues(np.zeros((16, 1), np.float32), _grid(4))).any()


def test_real_entries_are_returned_to_the_bit_and_hidden_ones_are_predicted_better_than_by_the_median() -> None:
    (train, _), (section, truth) = _planted(16, 1), _planted(16, 2)
    missing = ~section.real
    spackle, history = fit_spackle([train], OPTIONS, validation=[train])
    completed = {
        "median": MedianCompletion().complete(section),
        "linear": fit_linear([train], LinearOptions(alpha=10.0)).complete(section),
        "spackle": spackle.complete(section),
    }
    errors = {name: float(np.square(values - truth)[missing].mean()) for name, values in completed.items()}
    for values in completed.values():
        assert (values[section.real] == section.values[section.real]).all()
    assert errors["spackle"] < errors["median"] < np.square(truth)[missing].mean()
    assert errors["linear"] < errors["median"]
    assert history[-1]["step"] == OPTIONS.steps


def test_spackle_reads_neighbours_and_not_the_batch() -> None:
    train, _ = _planted(8, 1)
    spackle, _ = fit_spackle([train], SpackleOptions(neighbours=4, layers=1, feedforward=16, steps=2))
    centre, near = 27, nearest_spots(train.xy, 4)[27, 1:]
    far = np.setdiff1d(np.arange(64), [centre, *near])
    before = spackle.complete(_changed(train, centre, np.zeros(0, np.int64)))[centre]
    assert not np.allclose(spackle.complete(_changed(train, centre, near))[centre], before)
    np.testing.assert_array_equal(spackle.complete(_changed(train, centre, far))[centre], before)


def _changed(section: SectionValues, centre: int, rows: np.ndarray) -> SectionValues:
    values = section.values.copy()
    values[centre] = 0
    values[rows] += 1
    return SectionValues(values, section.xy)


def test_a_section_is_completed_alike_alone_and_after_others_and_from_stored_arrays() -> None:
    (train, _), (section, _) = _planted(8, 1), _planted(9, 2)
    spackle, _ = fit_spackle([train, section], OPTIONS)
    again = open_spackle(spackle.arrays(), OPTIONS)
    spackle.complete(train)
    np.testing.assert_array_equal(spackle.complete(section), again.complete(section))


def test_a_linear_completion_is_the_same_from_stored_arrays() -> None:
    (train, _), (section, _) = _planted(8, 1), _planted(9, 2)
    linear = fit_linear([train, section], LinearOptions())
    again = open_linear(linear.arrays(), LinearOptions())
    np.testing.assert_array_equal(linear.complete(section), again.complete(section))
    with pytest.raises(ModelError, match="offset absent"):
        open_linear({name: value for name, value in linear.arrays().items() if name != "offset"}, LinearOptions())


def _unmeasured(section: SectionValues, gene: int) -> SectionValues:
    values = section.values.copy()
    values[:, gene] = np.nan
    return SectionValues(values, section.xy)


def test_a_gene_that_a_section_has_not_measured_stays_missing_and_changes_no_mean() -> None:
    (first, _), (second, _) = _planted(8, 1), _planted(9, 2)
    lacking = _unmeasured(second, 3)
    completions: list[Completion] = [
        MedianCompletion(),
        fit_linear([first, lacking], LinearOptions()),
        fit_spackle([first, lacking], SpackleOptions(steps=3, neighbours=2, layers=1, feedforward=8), [lacking])[0],
    ]
    for one in completions:
        completed = one.complete(lacking)
        assert np.isnan(completed[:, 3]).all()
        assert np.isfinite(np.delete(completed, 3, axis=1)).all()
        assert np.isfinite(one.complete(first)).all()
    share = real_share([first, lacking])
    assert share[3] == first.real[:, 3].mean()
    assert mean_of_real([first, lacking])[3] == pytest.approx(first.values[:, 3][first.real[:, 3]].mean(), rel=1e-6)


@pytest.mark.parametrize("spots", [1, 2, 3])
def test_a_section_of_few_spots_is_completed(spots: int) -> None:
    train, _ = _planted(8, 1)
    few = SectionValues(train.values[:spots], train.xy[:spots])
    spackle, history = fit_spackle([train], SpackleOptions(steps=3, layers=1, feedforward=8), [few])
    fitted: list[Completion] = [MedianCompletion(), fit_linear([few, train], LinearOptions()), spackle]
    for one in fitted:
        assert np.isfinite(one.complete(few)).all()
    assert np.isfinite(history[-1]["validation_mse"])


def test_a_batch_in_which_nothing_is_hidden_changes_no_weight_to_nan() -> None:
    values = np.zeros((4, 2), np.float32)
    values[0] = 1.0  # a batch of one spot often has nothing to hide
    options = SpackleOptions(steps=12, batch_size=1, layers=1, feedforward=8, neighbours=1)
    spackle, history = fit_spackle([SectionValues(values, _grid(2))], options)
    assert all(np.isfinite(array).all() for array in spackle.arrays().values())
    assert np.isfinite([row["train_mse"] for row in history]).all()


def test_equal_seeds_train_equal_models() -> None:
    train, _ = _planted(8, 1)
    first, second = (fit_spackle([train], SpackleOptions(steps=5))[0].arrays() for _ in range(2))
    assert all((first[name] == second[name]).all() for name in first)


def test_the_graph_joins_four_neighbours_six_on_a_hexagonal_array_and_eight_with_corners() -> None:
    square = _grid(5)
    hexagonal = np.array([[column + row % 2 / 2, row * 3**0.5 / 2] for row in range(5) for column in range(5)])
    assert touching(square)[12].sum() == 4
    assert touching(hexagonal)[12].sum() == 6
    assert touching(square, diagonal=True)[12].sum() == 8
    assert neighbour_graph(square)[12].sum() == 8
    assert neighbour_graph(hexagonal)[12].sum() == 6


@pytest.mark.parametrize(
    "values", [np.array([[1.0], [np.nan], [1.0], [0.0]]), np.full((4, 1), -1.0), np.full((4, 1), np.inf)]
)
def test_values_that_are_no_expression_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ModelError, match="finite and 0 or above"):
        SectionValues(values.astype(np.float32), _grid(2))


def test_a_gene_that_was_never_counted_is_refused_by_a_trained_completion() -> None:
    section = SectionValues(np.array([[1.0, 0.0]] * 4, np.float32), _grid(2))
    for fit in (lambda: fit_linear([section], LinearOptions()), lambda: fit_spackle([section], OPTIONS)):
        with pytest.raises(ModelError, match="1 of 2 genes have no count"):
            fit()
