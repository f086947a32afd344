"""Labels of spots, of every kind, by hand: four spots of an array, three genes, two of them in the panel."""

import math

import numpy as np
import pytest
import scipy.sparse as sp

from raystp.errors import ModelError, SectionError
from raystp.evaluate.published import labels as published
from raystp.evaluate.published.registry import PUBLISHED
from raystp.expression.label_values import SpotArray, expected_labels, label_values
from raystp.expression.labels import Labels
from raystp.expression.normalise import log1p_cp10k

COUNTS = sp.csr_matrix(np.array([[1.0, 3, 6], [0, 2, 2], [0, 0, 5], [4, 4, 0]]))
"""Spots x the genes A, B, C."""
PANEL = np.array([1, -1, 0])
"""B, a gene that was not measured, and A."""
ARRAY = SpotArray(np.array([[0.1, 0], [1, 0.9], [2, 2], [0, 2]]), has_coordinates=True)
"""After rounding, the first two touch by a corner, the second touches the third and the fourth."""
NAN = math.nan


def _check(labels: Labels, expected: list[list[float]], array: SpotArray | None = None) -> None:
    found = label_values(COUNTS, PANEL, labels, array)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_default_is_log1p_of_counts_per_10000_of_all_genes_to_the_bit() -> None:
    found = label_values(COUNTS, PANEL, Labels())
    assert np.isnan(found[:, 1]).all()
    np.testing.assert_array_equal(found[:, [0, 2]], log1p_cp10k(COUNTS, columns=PANEL[[0, 2]]))


def test_without_totals_a_label_is_the_log_of_a_count() -> None:
    _check(
        Labels(totals="none"),
        [[math.log(4), NAN, math.log(2)], [math.log(3), NAN, 0], [0, NAN, 0], [math.log(5), NAN, math.log(5)]],
    )


def test_totals_of_the_panel_are_over_its_genes_and_a_spot_without_any_is_zero() -> None:
    half = math.log10(5001)
    _check(
        Labels(totals="panel", log="log10"),
        [[math.log10(7501), NAN, math.log10(2501)], [math.log10(10001), NAN, 0], [0, NAN, 0], [half, NAN, half]],
    )


def test_a_smoothed_label_is_the_mean_of_what_was_measured_in_3_by_3_places_with_the_spot_itself() -> None:
    plain = label_values(COUNTS, PANEL, Labels(totals="panel"))[:, 0].astype(float)
    a, b, c, d = plain.tolist()
    mean = [(a + b) / 2, (a + b + c + d) / 4, (b + c) / 2, (b + d) / 2]
    found = label_values(COUNTS, PANEL, Labels(totals="panel", smooth="array_3x3"), ARRAY)
    np.testing.assert_allclose(found[:, 0], mean, rtol=1e-6)
    assert np.isnan(found[:, 1]).all()


def test_an_absent_gene_is_zero_where_the_labels_say_so() -> None:
    _check(
        Labels("none", absent="zero"),
        [[math.log(4), 0, math.log(2)], [math.log(3), 0, 0], [0, 0, 0], [math.log(5), 0, math.log(5)]],
    )


@pytest.mark.parametrize("degrees", [0, 30])
def test_without_array_coordinates_a_square_array_has_8_neighbours_and_a_hexagonal_one_6(degrees: int) -> None:
    turn = np.array([[math.cos(one := math.radians(degrees)), -math.sin(one)], [math.sin(one), math.cos(one)]])
    square = np.array([[x, y] for x in range(5) for y in range(5)], float)
    hexagonal = np.array([[x + y % 2 / 2, y * 3**0.5 / 2] for x in range(5) for y in range(5)])
    middle = np.eye(25)
    for xy, count in ((square, 9), (hexagonal, 7)):
        mean = SpotArray(xy @ turn, has_coordinates=False).neighbourhood_mean(middle)
        assert (mean[12] > 0).sum() == count
        np.testing.assert_allclose(mean[12][mean[12] > 0], 1 / count)


def test_a_spot_without_counts_is_refused_only_where_totals_are_of_all_genes() -> None:
    empty = sp.csr_matrix(np.array([[0.0, 0], [1, 1]]))
    with pytest.raises(SectionError, match="1 of 2 spots have no counts"):
        label_values(empty, np.array([0]), Labels())
    assert label_values(empty, np.array([0]), Labels("none"))[0, 0] == 0


@pytest.mark.parametrize("labels", [Labels(), Labels("none"), Labels("panel", "log10", "array_3x3", "zero")])
def test_expected_counts_have_the_labels_of_equal_counts(labels: Labels) -> None:
    totals = np.asarray(COUNTS.sum(axis=1)).ravel()
    shares = COUNTS.toarray()[:, :2] / totals[:, None]
    found = expected_labels(shares, totals, labels, ARRAY)
    np.testing.assert_allclose(found, label_values(COUNTS, np.array([0, 1]), labels, ARRAY), rtol=1e-5)


@pytest.mark.parametrize("name", ["hest-readme", "triplex-250", "st-benching-833", "stem-200"])
def test_a_training_has_the_labels_that_its_protocol_scores(name: str) -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.5, (60, 8)).astype(float)
    array = np.stack([rng.permutation(100)[:60] // 10 + 0.04, np.arange(60) % 10], axis=1)
    panel, totals = counts[:, :5], counts.sum(axis=1) + 1
    whole = sp.csr_matrix(np.concatenate([counts, np.ones((60, 1))], axis=1))
    scored = {
        "hest-readme": published.log_counts(panel),
        "triplex-250": published.mean_3x3(published.log_share(panel, published.panel_totals(panel)), array),
        "st-benching-833": published.log_share(panel, totals) / math.log(10),
        "stem-200": published.log_counts(panel),
    }
    labels = Labels(**PUBLISHED[name].train["labels"])
    found = label_values(whole, np.arange(5), labels, SpotArray(array, has_coordinates=True))
    np.testing.assert_allclose(found, scored[name], rtol=1e-5, atol=1e-6)


def test_a_record_reads_back_and_one_without_labels_has_the_default() -> None:
    labels = Labels("panel", "log10", "array_3x3", "zero")
    assert Labels.of({"labels": labels.record}) == labels
    assert Labels.of({"genes": ["A"]}) == Labels()
    with pytest.raises(
        ModelError, match=r"labels\.totals: 'sum' in a model's record, and this raystp knows all, panel, none"
    ):
        Labels.of({"labels": {"totals": "sum"}})
    with pytest.raises(ModelError, match="knows the fields totals, log, smooth, absent"):
        Labels.of({"labels": {"scale": "none"}})


def test_every_kind_names_its_unit() -> None:
    assert (Labels().unit, Labels("none").unit) == ("log1p CP10k", "log1p counts")
    assert Labels().sentence == "log1p of counts per 10,000 of all genes of the section"
    triplex = Labels("panel", smooth="array_3x3")
    assert triplex.unit == "log1p CP10k of the panel, mean over 3 x 3 array places"
    assert Labels("panel", "log10", absent="zero").unit == "log10(1 + x) CP10k of the panel, 0 for an absent gene"
    assert triplex.changed == "totals=panel, smooth=array_3x3"
