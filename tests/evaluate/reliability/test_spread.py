"""Shares of truths within the spread, against counts by hand and a planted normal spread."""

from dataclasses import asdict, fields

import numpy as np
import pytest

from raystp import tables
from raystp.evaluate.reliability.report import reliability_lines, reliability_parts
from raystp.evaluate.reliability.spread import (
    MULTIPLES,
    NOMINAL,
    SpreadCoverage,
    coverage,
    spread_counts,
    within_normal,
)
from raystp.evaluate.report.parts import ReportChart, ReportTable
from raystp.evaluate.tables import SPREAD_COVERAGE


def test_errors_are_counted_in_spreads_and_an_edge_is_within() -> None:
    measured = np.array([[0.0, 1.0, 2.0, 3.0, 9.0], [2.0, 4.0, 2.0, 5.0, 2.0]])
    predicted = np.array([[0.0, 0.0, 0.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0, 2.0]])
    spread = np.array([[1.0, 1.0, 1.0, 1.0, 1.0], [0.0, 2.0, 0.0, 0.0, 4.0]])
    counts = spread_counts(predicted, measured, spread)
    assert (counts.values, counts.zero) == (10, 3)
    assert counts.within(0.0) == 4 / 10  # three that are equal to the truth, and the first
    assert counts.within(1.0) == 6 / 10
    assert counts.within(2.0) == 7 / 10
    assert counts.within(19.0) == 9 / 10  # an error with spread 0 is never within


def test_a_value_that_is_missing_is_left_out() -> None:
    nan = np.nan
    counts = spread_counts(np.zeros((1, 4)), np.array([[0.5, nan, 0.5, 3.0]]), np.array([[1.0, 1.0, nan, 1.0]]))
    assert (counts.values, counts.within(1.0)) == (2, 0.5)


@pytest.mark.parametrize(("stated", "within_1", "factor"), [(1.0, 0.683, 1.0), (0.5, 0.383, 2.0), (2.0, 0.954, 0.5)])
def test_a_planted_normal_spread_has_the_shares_of_a_normal(stated: float, within_1: float, factor: float) -> None:
    rng = np.random.default_rng(0)
    predicted, true = rng.normal(size=(2000, 50)), rng.uniform(0.5, 2.0, (2000, 50))
    measured = predicted + true * rng.normal(size=true.shape)
    (one, pooled) = coverage("m", [("S1", spread_counts(predicted, measured, stated * true))], "pooled")
    assert one.within_1 == pytest.approx(within_1, abs=0.005)
    assert one.within_2 == pytest.approx(within_normal(2.0 * stated), abs=0.005)
    assert one.factor == pytest.approx(factor, abs=0.02)
    assert one.shares == pytest.approx([within_normal(stated * k) for k in MULTIPLES], abs=0.005)
    if stated == 1.0:
        assert one.shares == pytest.approx(NOMINAL, abs=0.005)
    assert pooled.values == one.values == 100_000


def test_pooled_is_the_calibration_of_all_values_together() -> None:
    rng = np.random.default_rng(0)
    parts = [(rng.normal(size=(n, 3)), rng.normal(size=(n, 3)), rng.uniform(0.1, 1, (n, 3))) for n in (40, 7)]
    together = spread_counts(*(np.concatenate(one) for one in zip(*parts, strict=True)))
    rows = coverage("m", [(f"S{number}", spread_counts(*one)) for number, one in enumerate(parts)], "pooled")
    (whole,) = coverage("m", [("pooled", together)], "pooled")[:1]
    assert [row.section for row in rows] == ["S0", "S1", "pooled"]
    assert rows[-1] == whole


def test_a_spread_that_is_too_narrow_is_called_so_and_the_report_shows_it() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(100, 5))
    rows = coverage("bleep", [("S1", spread_counts(np.zeros_like(truth), truth, np.full_like(truth, 0.4)))], "pooled")
    (line,) = reliability_lines(rows, [])
    assert line.startswith("`bleep` spread: ")
    assert line.endswith("(normal: 68.3% and 95.4%): too narrow.")
    table, chart = reliability_parts(rows, [])
    assert isinstance(table, ReportTable)
    assert isinstance(chart, ReportChart)
    assert [row[:2] for row in table.rows] == [["bleep", "S1"], ["bleep", "pooled"]]
    assert reliability_parts([], []) == []
    assert [field.name for field in fields(SpreadCoverage)] == SPREAD_COVERAGE.names
    stored = tables.of_rows([asdict(row) for row in rows], SPREAD_COVERAGE)
    assert tables.csv_text(stored).splitlines()[1].startswith("bleep,S1,500,0.3")


def test_nothing_to_count_has_no_row() -> None:
    empty = spread_counts(np.zeros((2, 1)), np.full((2, 1), np.nan), np.ones((2, 1)))
    assert coverage("m", [("S1", empty)], "pooled") == []
