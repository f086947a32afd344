"""BLEEP's protocol on a toy, and its panel beside scanpy's."""

import numpy as np
import pytest
import scanpy as sc

from raystp.errors import ConfigError
from raystp.evaluate.published.bleep import BLEEP_LIVER, bleep_label, bleep_panel, score_bleep, third_of_four
from tests.evaluate.published.toy import adata_of, drawn_sections, fold, held_out

TOTALS = (10, 20, 30, 40)
COUNTS = np.asarray([(1, 0, 9), (2, 1, 9), (3, 0, 30), (4, 30, 40)], float)


def test_labels_are_scaled_to_the_median_total_of_the_section() -> None:
    label = bleep_label(held_out("C1", COUNTS, COUNTS, totals=TOTALS))
    np.testing.assert_allclose(label[0], np.log1p(np.asarray([1, 0, 9]) * 2.5))  # the median of 10, 20, 30, 40 is 25
    np.testing.assert_allclose(label[3], np.log1p(np.asarray([4, 30, 40]) * 0.625))


def test_both_gene_sets_are_ranked_on_the_test_section() -> None:
    label = bleep_label(held_out("C1", COUNTS, COUNTS, totals=TOTALS))
    assert label.sum(axis=0).argmax() == 2
    assert label.var(axis=0).argmax() == 1
    signs = (0.5, -1, 1)
    section = held_out("C1", COUNTS, label * signs, totals=TOTALS)
    scores = score_bleep([fold(1, section, genes=("HAL", "B", "C"))], size=1)
    assert scores.overall["PCC HEG-50"] == pytest.approx(1)
    assert scores.overall["PCC HVG-50"] == pytest.approx(-1)


def test_a_constant_gene_does_not_shift_the_sets_to_other_genes() -> None:
    counts = COUNTS.copy()
    counts[:, 0] = 0  # the published script removes this gene, and then reads gene C where B is meant
    label = bleep_label(held_out("C1", counts, counts, totals=TOTALS))
    scores = score_bleep([fold(1, held_out("C1", counts, label * (1, -1, 1), totals=TOTALS))], size=1)
    assert scores.overall["PCC HVG-50"] == pytest.approx(-1)
    assert scores.overall["PCC all"] == pytest.approx(0)


def test_markers_that_the_panel_lacks_are_named() -> None:
    label = bleep_label(held_out("C1", COUNTS, COUNTS, totals=TOTALS))
    section = held_out("C1", COUNTS, label * (-1, 1, 1), totals=TOTALS)
    scores = score_bleep([fold(1, section, genes=("B", "HAL", "C"))])
    assert scores.overall["PCC MG"] == pytest.approx(1)
    assert "1 of 8 markers" in scores.notes[0]


def test_the_third_of_four_sections_is_held_out() -> None:
    (one,) = third_of_four(dict.fromkeys(("D1", "A1", "C1", "B1"), "donor"))
    assert (one.train, one.test) == (("A1", "B1", "D1"), ("C1",))
    with pytest.raises(ConfigError, match="there are 2"):
        third_of_four({"A1": "donor", "B1": "donor"})


def test_harmony_is_said_to_be_missing() -> None:
    assert "Harmony" in BLEEP_LIVER.differs[0]


def test_the_panel_is_the_union_of_scanpys_variable_genes() -> None:
    sections = drawn_sections(0, [f"G{number:03d}" for number in range(200)])
    union = set()
    for one in sections.values():
        adata = adata_of(one)
        sc.pp.normalize_total(adata)
        sc.pp.log1p(adata)
        sc.pp.highly_variable_genes(adata, n_top_genes=30)
        union |= set(adata.var_names[adata.var["highly_variable"]])
    assert bleep_panel(sections, 30) == sorted(union)
    assert 30 < len(union) < 60
