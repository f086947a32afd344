"""Charts of cases from arrays."""

import numpy as np

from raystp.evaluate.metrics.cases import CaseOutcome
from raystp.evaluate.report.sections import case_gene_charts


def test_cases_are_points_with_a_reason_for_each_gene() -> None:
    outcome = CaseOutcome(["a", "b", "c"], ["a", "b", "c"], np.eye(3), np.eye(3))
    charts = case_gene_charts(outcome, ["x", "y", "z"], [(2, "highest PCC here"), (0, "listed")])
    assert [chart.title for chart in charts] == ["z, PCC 1.00: highest PCC here", "x, PCC 1.00: listed"]
