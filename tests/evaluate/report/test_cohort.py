"""The page of a cohort: links that follow a copy of the store, scores over folds, thumbnails."""

from pathlib import Path

import numpy as np

from raystp.evaluate.metrics.folds import CrossValidatedScore
from raystp.evaluate.protocols import PROTOCOLS
from raystp.evaluate.report.cohort import (
    THUMBNAIL_PX,
    Cohort,
    ReportLink,
    build_cohort_page,
    fold_score_parts,
    slide_figure,
)
from raystp.evaluate.report.parts import ReportTable
from tests.browser import NARROW, OpenPage

SCORES = [
    CrossValidatedScore("bleep", "PCC", "all", (0.1, 0.3), (0.05, 0.4)),
    CrossValidatedScore("ridge", "PCC", "all", (0.2, float("nan"))),
]


def page_of(*links: ReportLink) -> str:
    parts = fold_score_parts(SCORES, ["fold 1", "fold 2"])
    return build_cohort_page(Cohort("<b>cohort</b>", PROTOCOLS["patient"], "2 slides.", links, parts))


def test_scores_over_folds_are_a_table_and_a_point_for_each_fold_that_has_one() -> None:
    chart, table = fold_score_parts(SCORES, ["fold 1", "fold 2"])
    assert isinstance(table, ReportTable)
    assert list(table.rows[0]) == ["bleep", "PCC", "all", "0.200", "0.141", "[0.050, 0.400]", "0.100", "0.300"]
    assert list(table.rows[1]) == ["ridge", "PCC", "all", "0.200", "n/a", "", "0.200", "n/a"]
    points = chart.model.renderers[0].data_source.data  # type: ignore[union-attr]  # a chart of Bokeh
    assert (points["model"], points["value"]) == (["bleep", "bleep", "ridge"], [0.1, 0.3, 0.2])


def test_a_report_is_opened_from_the_page_by_the_keyboard(tmp_path: Path, open_page: OpenPage) -> None:
    report = tmp_path / "evaluate" / "a-fold1-0f" / "report.html"
    report.parent.mkdir(parents=True)
    report.write_text("<!doctype html><title>report of fold 1</title>")
    index = tmp_path / "pipeline" / "a-0e" / "index.html"
    index.parent.mkdir(parents=True)
    slide = slide_figure("A", np.full((400, 200, 3), 255, np.uint8))
    index.write_text(page_of(ReportLink("Fold 1", "../../evaluate/a-fold1-0f/report.html", ["P1"], "", [slide])))
    page = open_page(index, NARROW)
    page.wait_for_selector("#chart-0 .bk-Figure")
    assert page.evaluate("document.documentElement.scrollWidth") == NARROW
    assert page.get_by_alt_text("slide A").evaluate("e => e.naturalHeight") == THUMBNAIL_PX
    page.get_by_role("link", name="Fold 1").press("Enter")
    page.wait_for_url("**/report.html")
    assert page.title() == "report of fold 1"


def test_names_from_outside_add_no_html() -> None:
    page = page_of(ReportLink("<script>", "../x", ["<img src=x>"], "<i>", note="<u>"))
    for name in ("<b>cohort", "<script>\n<", "<img src=x>", "<i>", "<u>"):
        assert name not in page
    assert "&lt;b&gt;cohort" in page
