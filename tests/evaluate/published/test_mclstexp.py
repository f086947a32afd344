"""mclSTExp's protocol on a toy: which sections, the label of a gene's share, and which means leave out NaN."""

import numpy as np
import pytest

from raystp.errors import ConfigError
from raystp.evaluate.published.labels import log_share, panel_totals
from raystp.evaluate.published.mclstexp import (
    leave_section_out,
    mclstexp_label,
    score_mclstexp,
    sections_from_second,
)
from tests.evaluate.published.toy import fold, held_out

HER2ST = [f"{patient}{number}" for patient in "ABCD" for number in range(1, 7)]
HER2ST += [f"{patient}{number}" for patient in "EFGH" for number in range(1, 4)]
DEPTHS = [(1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4)]


def test_32_of_36_sections_are_used_without_a1_and_the_last_patient() -> None:
    kept = sections_from_second(HER2ST[::-1])
    assert len(kept) == 32
    assert (kept[0], kept[-1]) == ("A2", "G3")
    assert not [name for name in kept if name == "A1" or name.startswith("H")]


def test_too_few_sections_are_refused() -> None:
    with pytest.raises(ConfigError, match="of 2 that leaves 1"):
        sections_from_second(["B4", "C2"])


def test_a_section_is_tested_while_its_patient_is_trained_on() -> None:
    first, *_ = leave_section_out({"A2": "A", "A3": "A", "B1": "B"})
    assert (first.train, first.test) == (("A3", "B1"), ("A2",))


def test_the_label_is_a_genes_share_of_its_sum_over_spots_so_depth_stays_in() -> None:
    section = held_out("X1", DEPTHS, np.zeros((4, 3)))
    expected = np.log10([1001, 2001, 3001, 4001])
    np.testing.assert_allclose(mclstexp_label(section), np.stack([expected] * 3, axis=1))
    training = log_share(section.counts, panel_totals(section.counts))
    assert np.ptp(training) == pytest.approx(0)  # the label that the model was trained on knows nothing of depth


def test_predicting_depth_alone_scores_1() -> None:
    depth = np.stack([np.log10([1001, 2001, 3001, 4001])] * 3, axis=1)
    scores = score_mclstexp([fold(1, held_out("X1", DEPTHS, depth))], heg=1)
    assert scores.overall["PCC ACG"] == pytest.approx(1)
    assert scores.overall["MSE"] == pytest.approx(0, abs=1e-9)


def test_acg_leaves_out_constant_genes_and_heg_does_not() -> None:
    counts = np.stack([(1, 1, 1, 1), (4, 0, 0, 0), (1, 1, 1, 3)], axis=1)  # A is constant, and the highest mean
    label = mclstexp_label(held_out("X1", counts, np.zeros((4, 3))))
    scores = score_mclstexp([fold(1, held_out("X1", counts, label * (1, -1, 1)))], heg=1)
    assert scores.overall["PCC ACG"] == pytest.approx(0)
    assert np.isnan(scores.overall["PCC HEG-50"])
    np.testing.assert_allclose(scores.pcc[0], [np.nan, -1, 1])


def test_the_highest_genes_are_those_of_the_test_section() -> None:
    one = np.stack([(1, 2, 1, 2), (9, 0, 0, 1), (0, 0, 1, 9)], axis=1)
    two = np.stack([(0, 0, 1, 9), (9, 0, 0, 1), (1, 2, 1, 2)], axis=1)
    sections = []
    for name, counts in (("X1", one), ("X2", two)):
        label = mclstexp_label(held_out(name, counts, np.zeros((4, 3))))
        sections.append(held_out(name, counts, label * (1, -1, -1)))
    scores = score_mclstexp([fold(1, sections[0]), fold(2, sections[1])], heg=1)
    assert [one["PCC HEG-50"] for one in scores.folds] == pytest.approx([1, -1])
    assert scores.overall["PCC ACG"] == pytest.approx(-1 / 3)
