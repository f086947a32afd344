"""Stem's protocol on a toy: the best genes are picked on the test slide."""

import numpy as np
import pandas as pd
import pytest
import scanpy as sc

from raystp.errors import PanelError
from raystp.evaluate.published.protocol import GeneCounts
from raystp.evaluate.published.stem import score_stem, stem_label, stem_panel
from tests.evaluate.published.toy import adata_of, drawn_sections, fold, held_out

COUNTS = np.asarray([(0, 7, 1), (1, 3, 1), (3, 1, 0), (7, 0, 3)], float)


def test_the_label_is_log2_of_raw_counts() -> None:
    np.testing.assert_allclose(stem_label(held_out("X1", COUNTS, COUNTS))[:, 0], [0, 1, 2, 3])


def test_the_best_genes_are_picked_on_the_test_slide() -> None:
    predicted = np.log1p(COUNTS) * (1, -1, 1)
    predicted[:, 2] = [0, 1, 1, 0]
    scores = score_stem([fold(1, held_out("X1", COUNTS, predicted))], tops=(1, 2, 3))
    third = np.corrcoef([1, 1, 0, 2], [0, 1, 1, 0])[0, 1]
    assert scores.overall["PCC-1"] == pytest.approx(1)
    assert scores.overall["PCC-2"] == pytest.approx((1 + third) / 2)
    assert scores.overall["PCC-3"] == pytest.approx(third / 3)


def test_predictions_in_natural_logarithms_are_brought_to_log2() -> None:
    scores = score_stem([fold(1, held_out("X1", COUNTS, np.log1p(COUNTS)))], tops=(1,))
    assert scores.overall["MSE"] == pytest.approx(0, abs=1e-12)
    assert scores.overall["RVD"] == pytest.approx(0, abs=1e-12)


def test_variance_counts_relative_to_that_of_the_truth() -> None:
    scores = score_stem([fold(1, held_out("X1", COUNTS, 2 * np.log1p(COUNTS)))], tops=(1,))
    assert scores.overall["RVD"] == pytest.approx(9)  # (4 - 1)^2 / 1^2


def test_a_constant_gene_makes_only_the_mean_over_all_genes_nan() -> None:
    predicted = np.log1p(COUNTS)
    predicted[:, 1] = 1
    scores = score_stem([fold(1, held_out("X1", COUNTS, predicted))], tops=(2, 3))
    assert scores.overall["PCC-2"] == pytest.approx(1)
    assert np.isnan(scores.overall["PCC-3"])


def test_the_panel_is_of_high_mean_and_high_deviation() -> None:
    sections = drawn_sections(1, [*(f"G{number:03d}" for number in range(198)), "MT-CO1", "RPL3"])
    union: set[str] = set()
    for one in sections.values():
        adata = adata_of(one)
        sc.pp.filter_genes(adata, min_cells=1)
        sc.pp.normalize_total(adata)
        sc.pp.log1p(adata)
        sc.pp.highly_variable_genes(adata, n_top_genes=80)
        union |= set(adata.var_names[adata.var["highly_variable"]])
    genes = sorted(union - {"MT-CO1", "RPL3"})
    pooled = pd.concat(
        [pd.DataFrame(np.asarray(one.counts), columns=list(one.genes))[genes] for one in sections.values()]
    )
    by_mean, by_deviation = (list(one.sort_values(ascending=False).index) for one in (pooled.mean(), pooled.std()))
    sizes = {n: sorted(set(by_mean[:n]) & set(by_deviation[:n])) for n in range(1, len(genes) + 1)}
    expected = next(chosen for chosen in sizes.values() if len(chosen) >= 20)
    assert stem_panel(sections, 20, 80) == expected


def test_too_few_genes_for_the_panel_are_refused() -> None:
    few = {"a": GeneCounts(("A", "B", "C"), COUNTS)}
    with pytest.raises(PanelError, match="stem-200: 200 genes are chosen"):
        stem_panel(few)
