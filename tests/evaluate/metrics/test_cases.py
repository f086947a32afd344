"""Scores over cases: PCC and AUC by hand, chance level of a constant, no correlation for too few cases."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from raystp import tables
from raystp.evaluate.metrics.cases import CaseOutcome, auc_at_median, score_cases
from raystp.evaluate.metrics.genes import pcc_per_gene
from raystp.evaluate.metrics.score import ScoreLabel, ScoreRow

LABEL = ScoreLabel("patient", "all", "attention")


def _scored(predicted: np.ndarray, measured: np.ndarray, **given: Any) -> list[ScoreRow]:
    names = [f"P{number}" for number in range(len(predicted))]
    outcome = CaseOutcome(names, given.pop("patients", names), predicted, measured)
    sets = {"all": np.arange(predicted.shape[1])}
    return score_cases(LABEL, outcome, sets, rng=np.random.default_rng(0), draws=200, **given)


def test_auc_at_the_median_by_hand() -> None:
    measured = np.array([[0.0], [1.0], [2.0], [3.0]])
    assert auc_at_median(np.array([[0.0], [2.0], [1.0], [3.0]]), measured)[0] == 0.75  # 3 of 4 pairs in order
    assert auc_at_median(-measured, measured)[0] == 0.0
    assert auc_at_median(np.ones((4, 1)), measured)[0] == 0.5


def test_auc_is_nan_for_a_gene_without_a_case_above_the_median() -> None:
    measured = np.array([[0.0, 5.0], [0.0, 5.0], [7.0, 5.0]])
    found = auc_at_median(np.arange(6.0).reshape(3, 2), measured)
    assert found[0] == 1.0
    assert np.isnan(found[1])


def test_pcc_is_over_cases_and_the_interval_holds_it() -> None:
    rng = np.random.default_rng(1)
    measured = rng.normal(size=(20, 3))
    predicted = measured + 0.5 * rng.normal(size=(20, 3))
    rows = {row.metric: row for row in _scored(predicted, measured)}
    assert rows["PCC"].value == pytest.approx(pcc_per_gene(predicted, measured)[0].mean())
    pcc = rows["PCC"]
    assert pcc.low is not None
    assert pcc.high is not None
    assert pcc.low < pcc.value < pcc.high
    assert rows["AUC"].value == pytest.approx(auc_at_median(predicted, measured).mean())
    assert rows["MSE"].value == pytest.approx(np.square(predicted - measured).mean())
    assert tables.of_rows([asdict(row) for row in rows.values()], tables.SCORES).num_rows == 4


def test_a_constant_prediction_scores_nothing_and_is_counted() -> None:
    rows = {row.metric: row for row in _scored(np.ones((5, 2)), np.arange(10.0).reshape(5, 2))}
    assert (rows["PCC"].value, rows["PCC"].constant, rows["AUC"].value) == (0.0, 2, 0.5)


def test_two_cases_have_an_error_but_no_correlation() -> None:
    assert {row.metric for row in _scored(np.eye(2), np.eye(2))} == {"MSE", "MAE"}


def test_cases_of_two_patients_are_drawn_as_cases_and_two_cases_not_at_all() -> None:
    predicted, measured = np.random.default_rng(0).normal(size=(2, 6, 2))
    rows = _scored(predicted, measured, patients=["A", "A", "A", "B", "B", "B"])
    assert rows[0].low is not None
    assert _scored(predicted[:2], measured[:2])[0].low is None


def test_the_null_is_a_mean_over_the_sets_genes() -> None:
    null = np.array([[0.1, 0.3], [0.0, -0.2]])
    (row,) = [row for row in _scored(np.eye(4)[:, :2], np.eye(4)[:, :2], null=null) if row.metric == "PCC"]
    assert row.null_mean == pytest.approx(0.05)
    assert row.null_sd == pytest.approx(np.std([0.2, -0.1], ddof=1))
