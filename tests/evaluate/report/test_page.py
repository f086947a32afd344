"""The page in a browser: charts, hostile names, no error and no request."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from bokeh.embed import components
from bokeh.models import FactorRange
from bokeh.models.layouts import Column
from bokeh.models.widgets import AutocompleteInput
from bokeh.plotting import figure
from PIL import Image

from raystp.evaluate.metrics.gene_scores import GeneScores
from raystp.evaluate.metrics.score import ScoreRow
from raystp.evaluate.protocols import PROTOCOLS
from raystp.evaluate.report.document import Report, build_report
from raystp.evaluate.report.interactive import GENE_FIELD, POLICY, plain
from raystp.evaluate.report.parts import ReportChart, ReportTable, ViewerPart
from tests.browser import NARROW, WIDE, OpenPage

if TYPE_CHECKING:
    from playwright.sync_api import Page

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
    assert page.locator("#chart-0").bounding_box()["height"] == pytest.approx(200, abs=30)
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


def with_genes(**more: object) -> Report:
    genes = ["ERBB2", "MKI67", "KRT8"]
    scores = [
        GeneScores("bleep", "mean", np.ones(3, np.int64), np.array([0.2, 0.6, np.nan]), np.ones(3)),
        GeneScores("ridge", "mean", np.ones(3, np.int64), np.array([0.1, 0.3, np.nan]), np.ones(3)),
    ]
    return report(genes=genes, gene_scores=scores, **more)


def test_a_gene_is_found_by_typing_a_part_of_its_name(tmp_path: Path, open_page: OpenPage) -> None:
    page = open_page(written(tmp_path, with_genes()))
    field = page.get_by_placeholder("type a name")
    field.press_sequentially("rbb")
    field.press("Enter")
    page.get_by_text("ERBB2: rank 2 of 3, PCC 0.200; ridge 0.100").wait_for()
    field.fill("")
    field.press_sequentially("KRT8")
    field.press("Enter")
    page.get_by_text("KRT8: rank 3 of 3, PCC n/a; ridge n/a").wait_for()


def test_a_gene_that_is_found_is_chosen_in_the_maps_too(tmp_path: Path, open_page: OpenPage) -> None:
    field = AutocompleteInput(name=GENE_FIELD, value="ERBB2", completions=["ERBB2", "MKI67"])
    script, places = components({"gene": field})
    page = open_page(
        written(tmp_path, with_genes(viewer=ViewerPart("", f'<div id="here">{places["gene"]}</div>{script}')))
    )
    typed = page.locator("#genes").get_by_placeholder("type a name")
    typed.press_sequentially("mki")
    typed.press("Enter")
    page.get_by_text("rank 1 of 3, PCC 0.600; ridge 0.300; the maps above show it").wait_for()
    assert page.locator("#here input").input_value() == "MKI67"
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_nothing_but_the_boxes_of_tables_scrolls_sideways(tmp_path: Path, open_page: OpenPage, width: int) -> None:
    sets = ("all", "HEG-50", "HVG-50", "planted", "no signal")
    pcc = {"low": 0.1, "high": 0.3, "null_mean": -0.001, "null_sd": 0.012}
    error = {"low": 1.1, "high": 1.3}
    rows = [
        ScoreRow("patient", "toy", model, "mean", genes, metric, 0.2, **(pcc if metric == "PCC" else error))  # type: ignore[arg-type]
        for model in ("bleep", "log total counts")
        for metric, genes in [
            *(("PCC", one) for one in sets),
            *((one, "all") for one in ("MSE", "MAE", "spread", "RVD")),
        ]
    ]
    long = [{"slide": "S" * 60, "stage": "tile", "reason": "R" * 300}]
    content = with_genes(rows=rows, failures=long, charts=[chart()], manifests={"model": {"name": "x" * 500}})
    page = open_page(written(tmp_path, content), width)
    page.wait_for_selector("#chart-0 .bk-Figure")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    hidden = page.evaluate("(e => e.scrollWidth - e.clientWidth)(document.querySelector('.scroll'))")
    assert (hidden > 0) == (width == NARROW)  # the table of scores fits a wide page


def test_the_button_and_the_system_choose_light_or_dark_for_page_and_charts(
    tmp_path: Path, open_page: OpenPage
) -> None:
    path = written(tmp_path, report(charts=[chart()]))
    for dark in (False, True):
        page = open_page(path, dark=dark)
        page.wait_for_selector("#chart-0 .bk-Figure")
        before, label_before = colours(page)
        page.get_by_role("button", name="Light" if dark else "Dark").press("Enter")
        page.get_by_role("button", name="Dark" if dark else "Light").wait_for()
        for _ in range(50):  # the chart is drawn again in the next frame, which a busy machine draws late
            after, label_after = colours(page)
            if label_after != label_before:
                break
            page.wait_for_timeout(100)
        assert (sum(before) > 3 * 128) == (not dark)
        assert (sum(after) > 3 * 128) == dark
        assert label_before != label_after


def colours(page: "Page") -> tuple[list[int], list[int]]:
    """Return the page's background as red, green and blue, and the sum of the chart's pixels."""
    background = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    shown = Image.open(io.BytesIO(page.locator("#chart-0").screenshot())).convert("RGB")
    return background, np.asarray(shown).mean(axis=(0, 1)).astype(int).tolist()


def test_the_keyboard_reaches_the_contents_and_the_tables(tmp_path: Path, open_page: OpenPage) -> None:
    page = open_page(written(tmp_path, report()))
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent.trim().slice(0, 20)"))
    assert reached[:2] == ["Skip to the scores", "Scores"]
    assert "Dark" in reached
    assert any(text.startswith("model") for text in reached)  # the table, which scrolls with the arrow keys
