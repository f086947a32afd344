"""Scores of a cross-validation: mean and deviation over folds, and genes that other folds choose."""

import math

import numpy as np
import pytest

from raystp.evaluate.metrics.folds import fold_scores, folds_csv, folds_text, top_of_other_folds


def test_a_score_has_its_mean_and_deviation_over_the_folds_that_have_it() -> None:
    key, rare = ("m", "PCC", "all"), ("m", "PCC", "rare")
    whole, part = fold_scores([{key: 1.0}, {key: 2.0, rare: 5.0}, {key: 6.0}])
    assert whole.values == (1.0, 2.0, 6.0)
    assert (whole.mean, whole.sd) == pytest.approx((3.0, math.sqrt(7)))
    assert part.mean == 5.0
    assert math.isnan(part.sd)
    assert folds_csv([part], 3).splitlines() == ["model,metric,genes,fold1,fold2,fold3,mean,sd", "m,PCC,rare,,5,,5,"]
    lines = folds_text([whole, part], 3).splitlines()
    assert [line.split() for line in lines[3:]] == [
        ["m", "1", "1.000", "n/a"],
        ["m", "2", "2.000", "5.000"],
        ["m", "3", "6.000", "n/a"],
        ["m", "mean", "3.000", "5.000"],
        ["m", "sd", "2.646", "n/a"],
    ]


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
