"""A learning curve is over the genes that all its points have, a line per model."""

from dataclasses import asdict, fields

import numpy as np
import pytest

from raystp import tables
from raystp.evaluate.comparison.learning_curve import (
    LearningCurvePoint,
    TrainedScore,
    curve_lines,
    curve_parts,
    learning_curve,
)
from raystp.evaluate.report.parts import ReportChart, ReportTable
from raystp.evaluate.tables import LEARNING_CURVE


def trained(model: str, sections: tuple[str, ...], pcc: dict[str, float]) -> TrainedScore:
    values = np.array([*pcc.values()])
    return TrainedScore(model, sections, len(sections), [*pcc], values, 1.0 - values)


WHOLE = trained("ridge", ("A", "B", "C"), {"g1": 0.4, "g2": 0.6, "g3": np.nan, "g4": 0.9})
SMALL = trained("ridge", ("B",), {"g4": 0.1, "g3": 0.5, "g2": 0.2, "g1": np.nan})
OTHER = trained("ridge", ("A",), {"g2": 0.4, "g4": 0.3})
KNN = trained("knn", ("A", "B", "C"), {"g4": 0.5, "g2": 0.5})


def test_points_are_scored_on_the_genes_that_all_have_a_score_of() -> None:
    points = learning_curve([WHOLE, KNN, SMALL, OTHER])
    assert [(one.model, one.sections, one.trained, one.genes) for one in points] == [
        ("ridge", 1, ["A"], 2),
        ("ridge", 1, ["B"], 2),
        ("ridge", 3, ["A", "B", "C"], 2),
        ("knn", 3, ["A", "B", "C"], 2),
    ]
    assert [one.pcc for one in points] == pytest.approx([0.35, 0.15, 0.75, 0.5])
    assert [one.mse for one in points] == pytest.approx([0.65, 0.85, 0.25, 0.5])


def test_the_order_of_the_evaluations_changes_no_point() -> None:
    assert learning_curve([WHOLE, SMALL, OTHER]) == learning_curve([WHOLE, OTHER, SMALL])


def test_subsets_of_one_size_are_averaged_in_the_text_the_table_and_the_chart() -> None:
    points = learning_curve([WHOLE, KNN, SMALL, OTHER])
    assert curve_lines(points) == [
        "`ridge`: PCC 0.250 with 1, 0.750 with 3 training sections, on the 2 genes that all have.",
        "`knn`: PCC 0.500 with 3 training sections, on the 2 genes that all have.",
    ]
    chart, table = curve_parts(points)
    assert isinstance(chart, ReportChart)
    assert isinstance(table, ReportTable)
    assert [*map(list, table.rows)] == [
        ["ridge", "1", "2", "0.250", "0.141"],
        ["ridge", "3", "1", "0.750", "n/a"],
        ["knn", "3", "1", "0.500", "n/a"],
    ]


def test_without_a_common_gene_there_is_no_curve() -> None:
    assert learning_curve([WHOLE, trained("ridge", ("A",), {"g9": 0.1})]) == []
    assert learning_curve([]) == []
    assert (curve_parts([]), curve_lines([])) == ([], [])


def test_points_are_rows_of_their_table() -> None:
    assert [field.name for field in fields(LearningCurvePoint)] == LEARNING_CURVE.names
    table = tables.of_rows([asdict(one) for one in learning_curve([WHOLE, OTHER])], LEARNING_CURVE)
    assert tables.csv_text(table).splitlines()[2].startswith("ridge,3,3,A B C,2,")
