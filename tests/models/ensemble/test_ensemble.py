"""The mean of models: of one, of two, with missing predictions, with neighbours, and with weights that fit best."""

from typing import Any, cast

import numpy as np
import pytest

from raystp.errors import ModelError
from raystp.models.arrays import Arrays
from raystp.models.baselines.gene_mean import fit_gene_mean
from raystp.models.baselines.ridge import fit_ridge
from raystp.models.bleep.model import seeded_bleep
from raystp.models.bleep.options import BleepOptions
from raystp.models.ensemble.predictor import columns_of, stored_member, weighted_mean
from raystp.models.ensemble.weights import least_squares_weights
from raystp.models.methods import open_predictor
from raystp.models.nh2st.model import seeded_nh2st
from raystp.models.nh2st.options import Nh2stOptions
from raystp.models.predict import predict_slide
from raystp.models.predictor import DirectPredictor, NeighbourPredictor

META: dict[str, Any] = {"genes": ["A", "B", "C"], "d_image": 4}
RNG = np.random.default_rng(0)
FEATURES, EXPRESSION = RNG.normal(size=(40, 4)).astype(np.float32), RNG.normal(size=(40, 3)).astype(np.float32)
MEMBERS: dict[str, Arrays] = {"ridge": fit_ridge(FEATURES, EXPRESSION), "gene_mean": fit_gene_mean(EXPRESSION)}


def _ensemble(members: list[tuple[str, Arrays, dict[str, Any]]], weights: list[float]) -> DirectPredictor:
    arrays: Arrays = {"weights": np.array(weights)}
    records = []
    for number, (kind, own, meta) in enumerate(members):
        renamed, record = stored_member(number, kind, own, meta)
        arrays |= renamed
        records.append(record)
    return cast("DirectPredictor", open_predictor("ensemble", arrays, {**META, "members": records}))


def _of(kinds: list[str], weights: list[float]) -> np.ndarray:
    return _ensemble([(kind, MEMBERS[kind], META) for kind in kinds], weights).predict(FEATURES)


def _alone(kind: str) -> np.ndarray:
    return cast("DirectPredictor", open_predictor(kind, MEMBERS[kind], META)).predict(FEATURES)


def test_an_ensemble_of_one_is_its_member() -> None:
    np.testing.assert_array_equal(_of(["ridge"], [1.0]), _alone("ridge"))


def test_an_ensemble_of_two_is_their_mean() -> None:
    mean = (_alone("ridge") + _alone("gene_mean")) / 2
    np.testing.assert_allclose(_of(["ridge", "gene_mean"], [0.5, 0.5]), mean, atol=1e-6)
    unequal = 0.8 * _alone("ridge") + 0.2 * _alone("gene_mean")
    np.testing.assert_allclose(_of(["ridge", "gene_mean"], [0.8, 0.2]), unequal, atol=1e-6)


def test_many_equal_members_are_as_one() -> None:
    np.testing.assert_allclose(_of(["ridge"] * 7, [1 / 7] * 7), _alone("ridge"), atol=1e-6)


def test_ensembles_are_members_too() -> None:
    renamed, record = stored_member(0, "ridge", MEMBERS["ridge"], META)
    inner = {**renamed, "weights": np.array([1.0])}
    outer = _ensemble([("ensemble", inner, {**META, "members": [record]})], [1.0])
    np.testing.assert_array_equal(outer.predict(FEATURES), _alone("ridge"))


def test_a_member_that_does_not_predict_a_gene_has_no_vote() -> None:
    one, two = np.array([[1, np.nan, np.nan]], np.float32), np.array([[3, 5, np.nan]], np.float32)
    np.testing.assert_array_equal(weighted_mean([one, two], [0.75, 0.25]), [[1.5, 5, np.nan]])


def test_neighbours_reach_the_members_that_need_them() -> None:
    options: dict[str, Any] = {"dim": 8, "heads": 2, "neighbours_at_inference": True}
    network = seeded_nh2st(4, 3, Nh2stOptions(**options), seed=0)
    arrays = {name: value.numpy() for name, value in network.state_dict().items()}
    member = ("nh2st", arrays, {**META, "options": options})
    boxes = np.stack([np.arange(40.0) % 8, np.arange(40.0) // 8, np.ones(40)], axis=1)
    both = _ensemble([member, ("gene_mean", MEMBERS["gene_mean"], META)], [0.5, 0.5])
    assert isinstance(both, NeighbourPredictor)
    assert both.needs_neighbours
    alone = cast("DirectPredictor", open_predictor(*member))
    expected = (predict_slide(alone, FEATURES, boxes) + _alone("gene_mean")) / 2
    np.testing.assert_allclose(predict_slide(both, FEATURES, boxes), expected, atol=1e-6)


def test_a_contrastive_member_without_reference_rows_is_refused() -> None:
    arrays = {
        name: value.numpy() for name, value in seeded_bleep(4, 3, BleepOptions(dim=8), seed=0).state_dict().items()
    }
    with pytest.raises(ModelError, match="a member of the ensemble is a bleep model without reference rows"):
        _ensemble([("bleep", arrays, {**META, "options": {"dim": 8}})], [1.0])
    arrays |= {"reference/vectors": np.zeros((2, 8), np.float32), "reference/expression": EXPRESSION[:2]}
    with pytest.raises(ModelError, match="a member of the ensemble is a bleep model without a search"):
        _ensemble([("bleep", arrays, {**META, "options": {"dim": 8}})], [1.0])


def test_each_member_reads_its_own_columns() -> None:
    wide = np.concatenate([FEATURES[:, 2:], 9 * FEATURES, FEATURES[:, :2]], axis=1)
    columns = np.array([6, 7, 0, 1])
    renamed, record = stored_member(0, "ridge", MEMBERS["ridge"], META, columns=columns)
    assert record["columns"] == [[6, 8], [0, 2]]
    assert columns_of(record["columns"]).tolist() == columns.tolist()
    arrays = {**renamed, "weights": np.array([1.0])}
    both = cast("DirectPredictor", open_predictor("ensemble", arrays, {**META, "d_image": 8, "members": [record]}))
    np.testing.assert_array_equal(both.predict(wide), _alone("ridge"))


def test_the_weights_are_those_of_the_least_squared_error() -> None:
    truth = RNG.normal(size=(200, 3))
    one, two, bad = truth + RNG.normal(size=(200, 3)), truth + 2 * RNG.normal(size=(200, 3)), -3 * truth
    weights = least_squares_weights([one, two, bad], truth)
    assert weights.sum() == pytest.approx(1)
    assert weights.min() >= 0
    grid = [np.array([a, b, 1 - a - b]) for a in np.linspace(0, 1, 101) for b in np.linspace(0, 1 - a, 51)]
    errors = [float(np.square(np.tensordot(w, [one, two, bad], 1) - truth).sum()) for w in (weights, *grid)]
    assert errors[0] <= min(errors[1:]) * (1 + 1e-9)
    assert weights[0] == pytest.approx(0.8, abs=0.06)  # variances 1 and 4


def test_values_that_were_not_measured_have_no_part_in_the_weights() -> None:
    truth = RNG.normal(size=(50, 3))
    one, two = truth + 0.1 * RNG.normal(size=(50, 3)), truth + RNG.normal(size=(50, 3))
    expected = least_squares_weights([one[:30], two[:30]], truth[:30])
    truth[30:], one[40:] = np.nan, np.nan
    np.testing.assert_allclose(least_squares_weights([one, two], truth), expected, rtol=1e-6)
    nothing = least_squares_weights([one, two], np.full((50, 3), np.nan))
    assert nothing.tolist() == [0.5, 0.5]
