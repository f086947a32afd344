"""The protocol of st_benching on a toy: absent genes are 0, and a median over genes of means over folds."""

import numpy as np
import pytest

from raystp.evaluate.published.protocol import HeldOutSection
from raystp.evaluate.published.st_benching import benching_label, score_benching
from tests.evaluate.published.toy import fold, held_out

COUNTS = np.asarray([(1, 0, 2), (2, 1, 0), (0, 3, 1), (4, 2, 5)], float)
NAN = float("nan")


def _signed(name: str, signs: tuple[int, int, int], counts: np.ndarray = COUNTS) -> HeldOutSection:
    return held_out(name, counts, benching_label(held_out(name, counts, counts)) * signs)


def test_the_label_is_log10_of_the_share_of_the_full_matrix() -> None:
    label = benching_label(held_out("X1", COUNTS, COUNTS, totals=(100, 10, 1000, 1)))
    np.testing.assert_allclose(label[0], np.log10([101, 1, 201]))
    np.testing.assert_allclose(label[2], np.log10([1, 31, 11]))


def test_an_absent_gene_counts_as_0_and_not_as_missing() -> None:
    absent = COUNTS.copy()
    absent[:, 1] = NAN
    two = [_signed("X1", (1, 1, 1)), _signed("X2", (1, 1, 1), absent)]
    scores = score_benching([fold(1, *two)])
    np.testing.assert_allclose(scores.pcc[0], 1)
    np.testing.assert_allclose(benching_label(two[1])[:, 1], 0)


def test_a_gene_absent_everywhere_has_no_pcc_and_is_not_above_0() -> None:
    absent = COUNTS.copy()
    absent[:, 1] = NAN
    scores = score_benching([fold(1, _signed("X1", (1, 1, 1), absent))])
    assert np.isnan(scores.pcc[0, 1])
    assert scores.overall["PCC median"] == pytest.approx(1)
    assert scores.overall["percent of genes above 0"] == pytest.approx(200 / 3)


def test_the_headline_is_the_median_over_genes_of_their_mean_over_folds() -> None:
    scores = score_benching([fold(1, _signed("X1", (1, 1, -1))), fold(2, _signed("Y1", (-1, 1, 1)))])
    assert [one["PCC median"] for one in scores.folds] == pytest.approx([1, 1])  # their mean is 1
    assert scores.overall["PCC median"] == pytest.approx(0)  # gene means are 0, 1, 0
    assert scores.overall["PCC mean"] == pytest.approx(1 / 3)


def test_pcc_is_over_all_sections_of_the_patient_together() -> None:
    counts = np.asarray([(0, 1, 1), (1, 1, 2), (0, 2, 1), (1, 3, 1)], float)
    more = counts + np.asarray([100, 0, 0])
    one = held_out("X1", counts, [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 2, 0)])
    two = held_out("X2", more, [(9, 0, 0), (9, 0, 1), (9, 1, 0), (9, 2, 0)])
    scores = score_benching([fold(1, one, two)])
    assert scores.pcc[0, 0] > 0.8  # gene A is constant in each section: only the offset is predicted


def test_markers_that_the_panel_has_are_listed() -> None:
    scores = score_benching([fold(1, _signed("X1", (1, -1, 1)), genes=("A", "ERBB2", "C"))])
    assert scores.overall["PCC ERBB2"] == pytest.approx(-1)
    assert "PCC ESR1" not in scores.overall
