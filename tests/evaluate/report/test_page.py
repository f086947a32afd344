"""The page in a browser: charts, hostile names, no error and no request."""

from pathlib import Path

import pytest
from bokeh.models import FactorRange
from bokeh.models.layouts import Column
from bokeh.models.widgets import AutocompleteInput
from bokeh.plotting import figure

from raystp.evaluate.metrics.score import ScoreRow
from raystp.evaluate.protocols import PROTOCOLS
from raystp.evaluate.report.document import Report, build_report
from raystp.evaluate.report.interactive import POLICY, plain
from raystp.evaluate.report.parts import ReportChart, ReportTable, ViewerPart
from tests.browser import OpenPage

HOSTILE = ["$$x$$", "a </script><script>window.broken = 1</script>", r"\[x\]", r"\(x\)"]


def chart(label: str = "PCC") -> ReportChart:
    plot = figure(width=300, height=200, x_range=FactorRange(factors=[plain(label)]), title=plain(label))
    plot.vbar(x=[plain(label)], top=[0.5], width=0.8, legend_label=plain(label))
    plot.yaxis.axis_label = plain(label)
    return ReportChart(label, plot, label)


def report(**more: object) -> Report:
    rows = [ScoreRow("patient", "toy", model, "mean", "all", "PCC", 0.2, n=9) for model in ("bleep", "ridge")]
    values = {"title": "toy", "protocol": PROTOCOLS["patient"], "model": "bleep", "against": "ridge", "rows": rows}
    fixed = {"trained": ["A"], "tested": ["B"], "interval": "within section"}
    return Report(**(values | fixed | more))  # type: ignore[arg-type]  # a test's overrides


def written(folder: Path, content: Report) -> Path:
    path = folder / "report.html"
    path.write_text(build_report(content), encoding="utf-8")
    return path


def test_a_chart_is_drawn_and_the_page_loads_nothing(tmp_path: Path, open_page: OpenPage) -> None:
    page = open_page(written(tmp_path, report(charts=[chart()], comparison=[ReportTable("Pairs", ["a"], [["1"]])])))
    page.wait_for_selector("#chart-0 .bk-Figure")
    assert page.locator("#chart-0").bounding_box()["height"] == pytest.approx(200, abs=30)  # type: ignore[index]
    assert page.get_by_role("cell", name="1").is_visible()


def test_names_from_outside_are_text_in_charts_too(tmp_path: Path, open_page: OpenPage) -> None:
    page = open_page(written(tmp_path, report(charts=[chart(name) for name in HOSTILE])))
    page.wait_for_selector(f"#chart-{len(HOSTILE) - 1} .bk-Figure")
    page.wait_for_timeout(300)  # MathJax, were it asked for, is loaded after the chart is drawn
    assert page.evaluate("window.broken") is None


def test_bokehs_script_is_in_the_page_once_and_only_where_a_part_needs_it() -> None:
    without, plots = build_report(report()), build_report(report(charts=[chart(), chart()]))
    search = ReportChart("search", Column(children=[AutocompleteInput(completions=["A"])]))
    widgets = build_report(report(charts=[search], viewer=ViewerPart("<!-- head -->", "<div>maps</div>")))
    assert [page.count("BEGIN bokeh.min.js") for page in (without, plots, widgets)] == [0, 1, 1]
    assert [page.count("BEGIN bokeh-widgets.min.js") for page in (without, plots, widgets)] == [0, 0, 1]
    assert "<div>maps</div>" in widgets
    assert len(without) < 60_000
    assert "'none'" in POLICY
