"""The page of a cohort: links to the report of each fold, with thumbnails, and the scores over all folds."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from bokeh.models import ColumnDataSource, FactorRange, HoverTool
from jaxtyping import UInt8
from PIL import Image

from raystp.evaluate.metrics.folds import CrossValidatedScore
from raystp.evaluate.protocols import EvaluationProtocol
from raystp.evaluate.report.charts import ACCENT, OTHER, blank_chart
from raystp.evaluate.report.document import render_page
from raystp.evaluate.report.interactive import plain
from raystp.evaluate.report.parts import ReportChart, ReportFigure, ReportPart, ReportTable

THUMBNAIL_PX = 160
"""Longest side of a slide in the list of reports."""

CONTENTS = (("reports", "Reports"), ("scores", "Scores"), ("work", "Work"), ("failures", "Failures"))


@dataclass(frozen=True)
class ReportLink:
    """A report of the cohort: of a fold, or the only one."""

    name: str
    address: str
    """Relative to the page, so that a copy of the store keeps its links."""
    tested: Sequence[str]
    score: str = ""
    thumbnails: Sequence[ReportFigure] = ()
    note: str = ""


@dataclass(frozen=True)
class Cohort:
    """The content of the page, as plain values."""

    title: str
    protocol: EvaluationProtocol
    summary: str
    """One sentence: what was trained, and tested on what."""
    reports: Sequence[ReportLink]
    scores: Sequence[ReportPart]
    work: Sequence[ReportPart] = ()
    failures: Sequence[Mapping[str, str]] = ()
    """Rows of `tables.FAILURES`."""


def build_cohort_page(cohort: Cohort) -> str:
    """Return the page."""
    return render_page("cohort.html.j2", [*cohort.scores, *cohort.work], cohort=cohort, contents=CONTENTS)


def fold_score_parts(scores: Sequence[CrossValidatedScore], folds: Sequence[str]) -> list[ReportPart]:
    """Return PCC over all genes as a chart, a point per fold, and all scores as a table."""
    pcc = [one for one in scores if (one.metric, one.genes) == ("PCC", "all")]
    columns = ["model", "metric", "genes", "mean", "sd over folds", "95 % interval", *folds]
    rows = [
        [
            one.model,
            one.metric,
            one.genes,
            _number(one.mean),
            _number(one.sd),
            _interval(one),
            *map(_number, one.values),
        ]
        for one in scores
    ]
    table = ReportTable("Scores over folds", columns, rows)
    return [_fold_chart(pcc, folds), table] if pcc else [table]


def slide_figure(slide: str, pixels: UInt8[np.ndarray, "y x 3"]) -> ReportFigure:
    """Return a slide's small image."""
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return ReportFigure(slide, buffer.getvalue())


def _fold_chart(scores: Sequence[CrossValidatedScore], folds: Sequence[str]) -> ReportChart:
    """Draw a point per model and fold, and a line at each model's mean; the first model has its own colour."""
    names = [plain(one.model) for one in scores]
    plot = blank_chart("PCC, all genes", height=80 + 34 * len(names), y_range=FactorRange(factors=names[::-1]))
    points = [
        (name, plain(fold), value, ACCENT if name == names[0] else OTHER)
        for name, one in zip(names, scores, strict=True)
        for fold, value in zip(folds, one.values, strict=True)
        if np.isfinite(value)
    ]
    keys = ("model", "fold", "value", "colour")
    source = ColumnDataSource({key: [point[at] for point in points] for at, key in enumerate(keys)})
    dots = plot.scatter("value", "model", source=source, size=9, color="colour", alpha=0.75)
    plot.add_tools(HoverTool(renderers=[dots], tooltips=[("", "@model"), ("fold", "@fold"), ("PCC", "@value{0.000}")]))
    means = [(name, one.mean) for name, one in zip(names, scores, strict=True) if np.isfinite(one.mean)]
    colours = [ACCENT if name == names[0] else OTHER for name, _ in means]
    plot.scatter(
        [mean for _, mean in means], [name for name, _ in means], marker="dash", angle=np.pi / 2, size=22,
        line_width=3, color=colours,
    )  # fmt: skip
    plot.ygrid.grid_line_color = None
    return ReportChart("PCC of each fold", plot, "A point per fold; the bar is their mean.")


def _number(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "n/a"


def _interval(one: CrossValidatedScore) -> str:
    return "" if one.interval is None else f"[{one.interval[0]:.3f}, {one.interval[1]:.3f}]"
