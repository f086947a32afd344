from dataclasses import replace

import numpy as np
import pytest

from raystp.evaluate.metrics.genes import pcc_where_measured
from raystp.evaluate.metrics.score import ScoreLabel, score_model
from raystp.evaluate.report.viewer import scores
from raystp.evaluate.report.viewer.scores import gene_scores
from tests.evaluate.report.viewer.toy import outcome


def scored(sets: list[np.ndarray], seed: int = 0) -> scores.GeneIntervals:
    return gene_scores(outcome(), sets, rng=np.random.default_rng(seed), draws=300)


def test_pcc_of_genes_is_that_of_the_score_and_a_gene_that_is_not_measured_has_none() -> None:
    one, found = outcome(), scored([])
    np.testing.assert_allclose(found.pcc, pcc_where_measured(one.predicted, one.measured)[0], atol=1e-12)
    assert np.isnan([found.pcc[3], found.low[3], found.high[3]]).all()


def test_the_interval_is_that_of_the_scores_table() -> None:
    one, found = outcome(), scored([])
    rows = score_model(
        ScoreLabel("section", "toy", "m"), {"A": one}, {"all": np.array([2])}, rng=np.random.default_rng(0), draws=300
    )
    (row,) = (row for row in rows if (row.section, row.metric) == ("A", "PCC"))
    assert (found.pcc[2], found.low[2], found.high[2]) == pytest.approx((row.value, row.low, row.high), abs=1e-12)


def test_a_gene_predicted_without_skill_has_an_interval_around_0() -> None:
    found = scored([])
    assert found.low[2] < 0.0 < found.high[2]
    assert found.low[1] > 0.9


def test_genes_in_pieces_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scored([np.array([0, 1])])
    monkeypatch.setattr(scores, "GENES_AT_ONCE", 2)
    pieces = scored([np.array([0, 1])])
    for name in ("pcc", "low", "high"):
        np.testing.assert_allclose(getattr(pieces, name), getattr(whole, name), atol=1e-12)


def test_a_set_is_the_mean_over_its_genes_that_are_measured() -> None:
    one = outcome()
    mean = [values[:, [0, 1]].mean(axis=1) for values in (one.predicted, one.measured)]
    found = scored([np.array([0, 1]), np.array([1, 3]), np.array([3])])
    assert found.pcc[4] == pytest.approx(np.corrcoef(*mean)[0, 1])
    assert found.pcc[5] == pytest.approx(found.pcc[1])
    assert np.isnan(found.pcc[6])


def test_a_section_that_is_too_small_has_no_interval() -> None:
    one = outcome()
    small = replace(one, predicted=one.predicted[:8], measured=one.measured[:8], xy=one.xy[:8])
    found = gene_scores(small, [], rng=np.random.default_rng(0), draws=100)
    assert np.isnan(found.low).all()
    assert not np.isnan(found.pcc[1])
