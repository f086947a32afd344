"""Charts from scores: what is drawn, in which order, and what is left out."""

from typing import Any

import numpy as np
import pytest
from bokeh.models.layouts import Column

from raystp.evaluate.metrics.score import ScoreRow, SectionOutcome
from raystp.evaluate.report.charts import ACCENT, OTHER, curve_charts, score_charts
from raystp.evaluate.report.gene_charts import gene_pair_charts, gene_score_chart, pair_correlations
from raystp.evaluate.report.score_tables import score_tables

XY = np.zeros((4, 2))
UP, DOWN, BENT = np.arange(4.0), -np.arange(4.0), np.array([0.0, 1.0, 1.0, 0.0])


def data(chart: Any, at: int = 0) -> dict[str, Any]:
    """Return the data of the chart's glyph."""
    plot: Any = chart.model.children[-1] if isinstance(chart.model, Column) else chart.model
    found: dict[str, Any] = plot.renderers[at].data_source.data
    return found


def rows() -> list[ScoreRow]:
    lines = {"ridge": (0.2, 0.1, 0.3, 0.0, 0.01), "bleep": (0.1, None, None, None, None)}
    found = [ScoreRow("section", "toy", model, "mean", "all", "PCC", *line, n=9) for model, line in lines.items()]
    return [*found, ScoreRow("section", "toy", "ridge", "mean", "HEG-2", "PCC", 0.4)]


def test_scores_are_bars_as_long_as_their_value_in_the_tables_order() -> None:
    every, highest = score_charts(score_tables(rows())[0], "bleep")
    assert (every.title, highest.title) == ("PCC, all genes", "PCC, HEG-2")
    assert (data(every)["model"], data(every)["value"]) == (["ridge", "bleep"], [0.2, 0.1])
    assert data(every)["colour"] == [OTHER, ACCENT]
    assert data(every)["interval"] == ["[0.100, 0.300]", "none"]
    assert every.model.y_range.factors == ["bleep", "ridge"]  # from below
    assert data(highest)["model"] == ["ridge"]  # bleep has no score there
    limits = [(chart.model.x_range.start, chart.model.x_range.end) for chart in (every, highest)]
    assert limits[0] == limits[1]


def test_curves_show_what_was_recorded_and_leave_out_what_was_not() -> None:
    epochs = [{"epoch": at, "train_loss": 1.0 / (at + 1), "validation_loss": None} for at in range(3)]
    (losses,) = curve_charts({"bleep": [{**row, "validation_pcc": None} for row in epochs]})
    assert losses.title == "Loss by epoch"
    assert data(losses) == {"epoch": [0, 1, 2], "value": [1.0, 0.5, pytest.approx(1 / 3)], "name": ["bleep"] * 3}
    assert curve_charts({}) == []


def test_genes_are_sorted_by_their_score_and_those_without_one_are_last() -> None:
    chart = gene_score_chart(
        ["a", "b", "c", "d"], ("m", np.array([0.1, np.nan, 0.7, 0.1])), ("n", np.array([0.5, 0.2, np.nan, 0.3]))
    )
    assert data(chart)["gene"] == ["c", "a", "d", "b"]
    np.testing.assert_allclose(data(chart)["value"], [0.7, 0.1, 0.1, np.nan], rtol=1e-6)
    np.testing.assert_allclose(data(chart)["other"], [np.nan, 0.5, 0.3, 0.2], rtol=1e-6)
    assert "3 of 4 genes have a PCC" in chart.caption


def test_pairs_of_genes_are_correlated_as_their_columns_are_and_missing_genes_are_left_out() -> None:
    measured = np.column_stack([UP, DOWN, np.full(4, np.nan), np.ones(4)])
    first = SectionOutcome(np.column_stack([UP, UP, UP, UP]), measured, XY, "P")
    second = SectionOutcome(np.column_stack([UP, DOWN, UP, UP]), np.column_stack([UP, UP, UP, UP]), XY, "Q")
    found = pair_correlations({"A": first, "B": second}, np.arange(4))
    # genes 0 and 1: measured -1 in A and 1 in B; predicted 1 in A and -1 in B
    np.testing.assert_allclose([found[0][0, 1], found[1][0, 1]], [0.0, 0.0], atol=1e-12)
    # genes 0 and 2: only B measured gene 2; genes 0 and 3: gene 3 is constant in A
    np.testing.assert_allclose([found[0][0, 2], found[1][0, 2], found[0][0, 3]], [1.0, 1.0, 1.0])
    alone = pair_correlations({"A": first}, np.arange(4))
    assert np.isnan([alone[0][0, 2], alone[1][0, 2], alone[0][0, 3]]).all()


def test_the_square_has_the_measurement_above_its_diagonal_and_the_prediction_below() -> None:
    measured, predicted = np.column_stack([UP, DOWN, BENT]), np.column_stack([UP, UP + BENT, BENT])
    square, points = gene_pair_charts(["a", "b", "c"], {"A": SectionOutcome(predicted, measured, XY, "P")}, "m")
    place = {gene: at for at, gene in enumerate(square.model.x_range.factors)}
    cells = data(square)
    assert len(cells["x"]) == 6
    for x, y, kind, shown, is_measured, is_predicted in zip(
        *(cells[name] for name in ("x", "y", "kind", "shown", "measured", "predicted")), strict=True
    ):
        assert kind == ("measured" if place[x] > place[y] else "predicted")
        assert shown == (is_measured if kind == "measured" else is_predicted)
    pairs = {frozenset(name.split(" and ")): at for at, name in enumerate(data(points, 1)["pair"])}
    np.testing.assert_allclose(data(points, 1)["x"][pairs[frozenset("ab")]], -1.0, atol=1e-6)


def test_two_genes_have_no_square() -> None:
    outcome = SectionOutcome(np.column_stack([UP, UP]), np.column_stack([UP, DOWN]), XY, "P")
    assert gene_pair_charts(["a", "b"], {"A": outcome}, "m") == []


def test_a_section_where_a_gene_was_constant_is_in_neither_mean() -> None:
    varied = SectionOutcome(np.column_stack([UP, UP]), np.column_stack([UP, DOWN]), XY, "P")
    constant = SectionOutcome(np.column_stack([UP, BENT]), np.column_stack([UP, np.zeros(4)]), XY, "Q")
    measured, predicted = pair_correlations({"A": varied, "B": constant}, np.arange(2))
    np.testing.assert_allclose([measured[0, 1], predicted[0, 1]], [-1.0, 1.0])
