"""TRIPLEX's protocol on a toy: panel totals, smoothed labels, weights by spots, genes ranked on test."""

import numpy as np
import pytest

from raystp.evaluate.published.labels import mean_3x3
from raystp.evaluate.published.protocol import FoldOutcome, GeneCounts, HeldOutSection
from raystp.evaluate.published.triplex import group_folds, score_triplex, triplex_label, triplex_panel
from tests.evaluate.published.toy import LINE, fold, held_out

COUNTS = [(1, 1, 2), (4, 0, 0), (1, 0, 3), (0, 2, 2)]


def _signed(section: str, signs: tuple[int, int, int], rows: tuple[int, ...] = (0, 1, 2, 3)) -> HeldOutSection:
    """Return a section whose prediction of each gene is its label, or the opposite."""
    label = triplex_label(held_out(section, COUNTS, np.zeros((4, 3))))
    return held_out(section, COUNTS, (label * signs)[list(rows)], rows=rows)


def _folds() -> list[FoldOutcome]:
    one = fold(1, _signed("X1", (1, 1, -1)), _signed("X2", (1, -1, -1), rows=(0, 1)))
    return [one, fold(2, _signed("Y1", (1, 1, -1)))]


def test_the_neighbourhood_includes_the_spot_and_averages_what_exists() -> None:
    values = np.asarray([[0.0], [3.0], [6.0], [10.0]])
    np.testing.assert_allclose(mean_3x3(values, np.asarray(LINE)).ravel(), [1.5, 3, 4.5, 10])


def test_diagonal_places_are_neighbours_and_coordinates_are_rounded() -> None:
    values = np.asarray([[0.0], [6.0], [9.0]])
    array = np.asarray([(0, 0), (1.1, 0.9), (1, 3)])
    np.testing.assert_allclose(mean_3x3(values, array).ravel(), [3, 3, 9])


def test_totals_are_of_the_panel_and_not_of_the_section() -> None:
    label = triplex_label(held_out("X1", COUNTS, np.zeros((4, 3)), totals=(7, 700, 7, 70)))
    alone = [np.log(1), np.log(5001), np.log(5001)]  # the last spot has no neighbour: 0, 2, 2 of 4 counts
    np.testing.assert_allclose(label[3], alone)
    first = [(np.log(2501) + np.log(10001)) / 2, np.log(2501) / 2, np.log(5001) / 2]
    np.testing.assert_allclose(label[0], first)


def test_labels_of_test_spots_are_smoothed() -> None:
    unsmoothed = np.log1p(np.asarray(COUNTS) / 4 * 1e4)
    scores = score_triplex([fold(1, held_out("X1", COUNTS, unsmoothed))])
    assert (scores.pcc[0] < 0.99).all()


def test_sections_count_by_their_spots_and_folds_do_not() -> None:
    scores = score_triplex(_folds())
    assert scores.folds[0]["PCC all"] == pytest.approx((4 * (1 / 3) + 2 * (-1 / 3)) / 6)
    assert scores.folds[1]["PCC all"] == pytest.approx(1 / 3)
    assert scores.overall["PCC all"] == pytest.approx((1 / 9 + 1 / 3) / 2)
    np.testing.assert_allclose(scores.pcc[0], [1, (4 - 2) / 6, -1])


def test_the_most_predictive_genes_are_ranked_on_the_test_folds() -> None:
    scores = score_triplex(_folds(), hpg=1)
    assert scores.overall["PCC HPG-50"] == pytest.approx(1)  # gene A, the best of both folds
    two = score_triplex(_folds(), hpg=2)
    assert two.folds[0]["PCC HPG-50"] == pytest.approx((4 * 1 + 2 * 0) / 6)


def test_a_gene_without_a_pcc_is_left_out_of_the_mean_and_ranks_last() -> None:
    section = _signed("X1", (1, 1, 1))
    section.predicted[:, 0] = 5
    scores = score_triplex([fold(1, section)], hpg=2)
    assert scores.overall["PCC all"] == pytest.approx(1)
    assert scores.overall["PCC HPG-50"] == pytest.approx(1)
    assert np.isnan(scores.pcc[0, 0])


def test_errors_are_of_the_smoothed_labels() -> None:
    scores = score_triplex([fold(1, _signed("X1", (1, 1, 1)))])
    assert scores.overall["MSE"] == pytest.approx(0, abs=1e-9)
    assert scores.overall["MAE"] == pytest.approx(0, abs=1e-5)


def test_the_panel_is_of_pooled_spots_by_total_count() -> None:
    one = GeneCounts(("A", "B", "C", "only here"), np.asarray([[5, 1, 0, 99], [5, 1, 0, 99]], float))
    two = GeneCounts(("C", "B", "A"), np.asarray([[9, 0, 0]] * 1 + [[0, 0, 0]] * 17, float))
    sections = {"X1": one, "Y1": two}
    assert triplex_panel(sections, 2) == ["A", "B"]  # C: 1 of 20 spots is below a tenth, A and B: 2 of 20
    assert triplex_panel(sections, 1) == ["A"]


def test_folds_are_of_whole_patients() -> None:
    patients = {f"{patient}{number}": patient for patient in "ABCDEFGH" for number in range(3)}
    folds = group_folds(patients)
    assert sorted(name for one in folds for name in one.test) == sorted(patients)
    assert len(folds) == 8
    assert all({patients[name] for name in one.test}.isdisjoint(patients[name] for name in one.train) for one in folds)
    assert len(group_folds({"X1": "X", "Y1": "Y"})) == 2
