"""Genes to complete are expressed widely and in a spatial pattern; errors are of hidden entries alone."""

import numpy as np
import pytest

from raystp.models.completion.genes import expressed_genes, morans_i, most_spatial
from raystp.models.completion.hidden import GeneMeanCompletion, errors_on_hidden
from raystp.models.completion.median import MedianCompletion
from raystp.models.completion.values import SectionValues

XY = np.array([[column, row] for row in range(8) for column in range(8)], np.float64)


def test_the_prefix_is_sorted_by_the_least_share_and_as_long_as_its_mean_share_allows() -> None:
    shares = np.array([[0.9, 1.0, 0.5, 0.2], [0.9, 0.6, 0.5, 0.2]])
    overall = np.array([0.9, 0.8, 0.5, 0.2])
    assert expressed_genes(shares, overall, 0.7).tolist() == [0, 1, 2]  # means .9, .85, .733, .6
    assert expressed_genes(shares, overall, 0.85).tolist() == [0, 1]
    assert expressed_genes(shares, overall, 0.95).tolist() == []


def test_morans_i_is_high_for_a_gradient_negative_for_a_checkerboard_and_0_for_a_constant() -> None:
    columns = [XY[:, 0], (XY.sum(axis=1) % 2), np.ones(64), np.full(64, np.nan)]
    found = morans_i(SectionValues(np.stack(columns, axis=1).astype(np.float32), XY))
    assert found[0] > 0.8
    assert abs(found[1]) < 0.1  # four sides differ, four corners agree
    assert found[2] == 0
    assert np.isnan(found[3])


def test_morans_i_equals_its_formula_on_three_spots_of_a_line() -> None:
    xy = np.array([[0.0, 0], [1, 0], [2, 0]])
    (found,) = morans_i(SectionValues(np.array([[0], [1], [5]], np.float32), xy))
    z = np.array([0.0, 1, 5]) - 2
    assert found == pytest.approx((z[0] * z[1] + z[1] * (z[0] + z[2]) / 2 + z[2] * z[1]) / np.square(z).sum())


def test_the_most_spatial_genes_are_those_of_the_highest_mean_over_sections() -> None:
    noise = np.random.default_rng(0).random((64, 1))
    smooth, smoother = XY[:, :1] + 3 * noise, XY[:, 1:]
    sections = [SectionValues(np.hstack([noise, smooth, smoother]).astype(np.float32), XY)] * 2
    assert most_spatial(sections, 2).tolist() == [2, 1]


def test_errors_are_of_entries_that_were_counted_and_hidden() -> None:
    values = np.random.default_rng(1).random((64, 3)).astype(np.float32)
    values[:5, 1] = 0
    section, rates = SectionValues(values, XY), np.array([0.5, 0.5, 0.0])
    rows = errors_on_hidden(
        "S",
        section,
        rates,
        {"gene mean": GeneMeanCompletion(), "median": MedianCompletion()},
        rng=np.random.default_rng(0),
    )
    hidden = section.real & (np.random.default_rng(0).random(values.shape) < rates)
    visible = section.real & ~hidden
    means = np.array([values[visible[:, gene], gene].mean() for gene in range(3)])
    errors = (np.broadcast_to(means, values.shape) - values)[hidden]
    assert [row.method for row in rows] == ["gene mean", "median"]
    assert rows[0].entries == hidden.sum()
    assert rows[0].mse == pytest.approx(np.square(errors).mean(), rel=1e-5)
    assert rows[0].mae == pytest.approx(np.abs(errors).mean(), rel=1e-5)
    assert rows[0].pcc is None  # a constant has no correlation
    assert errors_on_hidden("S", section, np.zeros(3), {}, rng=np.random.default_rng(0)) == []
