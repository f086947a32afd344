"""Scores of a cross-validation: mean and deviation over folds, and genes that other folds choose."""

import math
from dataclasses import replace

import numpy as np
import pytest

from raystp.evaluate.metrics.folds import fold_scores, folds_csv, folds_text, mean_interval, top_of_other_folds


def test_a_score_has_its_mean_and_deviation_over_the_folds_that_have_it() -> None:
    key, rare = ("m", "PCC", "all"), ("m", "PCC", "rare")
    whole, part = fold_scores([{key: 1.0}, {key: 2.0, rare: 5.0}, {key: 6.0}])
    assert whole.values == (1.0, 2.0, 6.0)
    assert (whole.mean, whole.sd) == pytest.approx((3.0, math.sqrt(7)))
    assert part.mean == 5.0
    assert math.isnan(part.sd)
    assert folds_csv([part], [0, 1, 4]).splitlines() == [
        "model,metric,genes,fold0,fold1,fold4,mean,sd,low,high",
        "m,PCC,rare,,5,,5,,,",
    ]
    assert folds_csv([replace(part, interval=(4.5, 5.5))], [1, 2, 3]).endswith(",5,,5,,4.5,5.5\n")
    lines = folds_text([replace(whole, interval=(1.5, 4.25)), part], [1, 2, 3], "Three folds").splitlines()
    assert lines[0] == "Three folds"
    assert [line.split() for line in lines[3:]] == [
        ["m", "1", "1.000", "n/a"],
        ["m", "2", "2.000", "5.000"],
        ["m", "3", "6.000", "n/a"],
        ["m", "mean", "3.000", "5.000"],
        ["m", "sd", "2.646", "n/a"],
        ["m", "95", "%", "1.500", "to", "4.250", "n/a"],
    ]


def test_the_interval_draws_patients_with_all_their_sections_and_is_of_the_mean_over_folds() -> None:
    fold, patients = np.array([0, 0, 1, 2]), ["A", "A", "B", "C"]
    assert mean_interval(np.array([0.25, 0.25, 0.25, 0.25]), fold, patients) == (0.25, 0.25)
    # A draw of A alone, B alone or C alone has 1/27 each; their means are .3, .5 and .7.
    found = mean_interval(np.array([0.2, 0.4, 0.5, 0.7]), fold, patients)
    assert found == pytest.approx((0.3, 0.7))
    assert (
        mean_interval(np.array([0.2, 0.4, 0.5, np.nan]), fold, patients) is not None
    )  # three sections of two patients
    assert mean_interval(np.array([0.2, np.nan, 0.5, np.nan]), fold, patients) is None


def test_the_best_genes_of_a_fold_are_chosen_by_the_other_folds() -> None:
    pcc = np.array([[0.9, 0.1, 0.2], [0.0, 0.8, 0.1], [0.1, 0.7, np.nan]])
    found = top_of_other_folds(pcc, ["a", "b", "c"], 1)
    np.testing.assert_allclose(found, [0.1, 0.0, 0.1])  # b; then a, of mean .5; then a, of .45 with b: ties by name
    assert np.isnan(top_of_other_folds(pcc[:1], ["a", "b", "c"], 1)).all()


def test_noise_that_is_picked_on_other_folds_scores_nothing_and_on_its_own_test_much() -> None:
    pcc = np.random.default_rng(0).normal(0, 0.2, size=(5, 4000))
    names = [f"g{number}" for number in range(4000)]
    assert abs(top_of_other_folds(pcc, names, 100).mean()) < 0.03
    assert np.sort(pcc, axis=1)[:, -100:].mean() > 0.3
