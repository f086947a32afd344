"""HEST's protocol on a toy, and its panel beside scanpy's."""

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from scipy.stats import pearsonr

from raystp.errors import PanelError
from raystp.evaluate.published.hest import hest_panel, leave_patient_out, score_hest
from raystp.evaluate.published.panels import most_variable
from raystp.evaluate.published.protocol import FoldOutcome, HeldOutSection
from tests.evaluate.published.toy import adata_of, drawn_sections, fold, held_out

UP = (0, 1, 3, 7)
"""Counts whose logarithms are 0, 1, 2, 3 times ln 2."""


def _first() -> FoldOutcome:
    """Return two samples of one fold: gene A is uncorrelated in each, B is predicted exactly, C with the wrong sign."""
    low = np.asarray([(0, 0, 0), (1, 1, 1), (0, 3, 3), (1, 7, 7)])
    high = np.asarray([(3, 0, 0), (7, 1, 1), (3, 3, 3), (7, 7, 7)])
    right = (0, 1, 2, 3)
    one = np.stack([(0, 0, 1, 1), right, [-x for x in right]], axis=1)
    two = np.stack([(2, 2, 3, 3), right, [-x for x in right]], axis=1)
    return fold(1, held_out("X1", low, one), held_out("X2", high, two))


def _second() -> HeldOutSection:
    counts = np.stack([UP, UP, UP], axis=1)
    return held_out("Y1", counts, np.stack([(0, 1, 2, 3)] * 3, axis=1))


def test_pcc_is_over_concatenated_samples_so_offsets_between_them_count_as_signal() -> None:
    scores = score_hest([_first(), fold(2, _second())])
    np.testing.assert_allclose(scores.pcc[0], [0.8, 1, -1], atol=1e-12)  # A is 0 in each sample alone
    assert scores.folds[0]["PCC"] == pytest.approx(0.8 / 3)
    assert scores.overall["PCC"] == pytest.approx((0.8 / 3 + 1) / 2)


def test_the_deviation_over_folds_divides_by_their_number() -> None:
    scores = score_hest([_first(), fold(2, _second())])
    assert scores.sd["PCC"] == pytest.approx((1 - 0.8 / 3) / 2)


def test_labels_are_raw_counts_without_library_size() -> None:
    deep = [(1, 3, 7), (3, 7, 15), (7, 15, 31), (15, 31, 63)]
    logs = np.log2(np.asarray(deep) + 1)
    one = held_out("X1", deep, logs, totals=(1, 1000, 7, 3))
    assert score_hest([fold(1, one)]).overall["PCC"] == pytest.approx(1)


def test_a_constant_gene_makes_the_mean_nan_and_is_named() -> None:
    flat = held_out("Y1", [(0, 0, 0), (1, 1, 1), (3, 3, 3), (7, 7, 7)], [(0, 0, 5), (1, 1, 5), (2, 2, 5), (3, 3, 5)])
    scores = score_hest([_first(), fold(2, flat)])
    assert np.isnan(scores.folds[1]["PCC"])
    assert np.isnan(scores.overall["PCC"])
    assert "C is constant" in scores.notes[0]


def test_only_predicted_spots_are_scored() -> None:
    counts = np.stack([UP, UP, UP], axis=1)
    some = held_out("Y1", counts, [(0, 0, 0), (1, 1, 1), (3, 3, 2)], rows=(0, 1, 3))
    expected = pearsonr([0, 1, 3], [0, 1, 2]).statistic
    np.testing.assert_allclose(score_hest([fold(1, some)]).pcc[0], [1, 1, expected])


def test_folds_leave_one_patient_out() -> None:
    folds = leave_patient_out({"Y1": "Y", "X2": "X", "X1": "X"})
    assert [(one.train, one.test) for one in folds] == [(("Y1",), ("X1", "X2")), (("X1", "X2"), ("Y1",))]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_panel_is_that_of_scanpy(seed: int) -> None:
    sections = drawn_sections(seed, [*(f"G{number:03d}" for number in range(298)), "BLANK_1", "NegControl_2"])
    adatas = [adata_of(one) for one in sections.values()]
    for adata in adatas:
        sc.pp.filter_genes(adata, min_cells=int(np.ceil(0.1 * adata.n_obs)))
    common = sorted(set(adatas[0].var_names) & set(adatas[1].var_names))
    stacked = ad.concat(
        [one[:, [gene for gene in common if "BLANK" not in gene and "Control" not in gene]] for one in adatas],
        index_unique="-",
    )
    sc.pp.log1p(stacked)
    sc.pp.highly_variable_genes(stacked, n_top_genes=50)
    expected = stacked.var_names[stacked.var["highly_variable"]].tolist()
    assert len(expected) == 50
    assert hest_panel(sections) == expected


def test_a_panel_of_constant_genes_is_refused() -> None:
    with pytest.raises(PanelError, match="none of 2 genes has a dispersion"):
        most_variable(np.zeros((4, 2)), ("A", "B"), 1)
