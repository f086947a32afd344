"""Charts of scores, of training and of cases, in Bokeh; the page gives them their colours for light and dark.

Marks use colours that are distinct for colour-blind readers and visible on white and on black. A chart is as wide as
its place. It does not catch the wheel or a finger, so that the page can be scrolled over it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from bokeh.models import BasicTicker, ColumnDataSource, FactorRange, HoverTool
from bokeh.models.annotations import Span
from bokeh.plotting import figure
from jaxtyping import Float

from raystp.evaluate.metrics.score import ScoreRow
from raystp.evaluate.report.interactive import plain
from raystp.evaluate.report.parts import ReportChart
from raystp.evaluate.report.score_tables import ScoreTable, interval_text, null_text

ACCENT, OTHER, NULL = "#3d7fbd", "#8d97a5", "#d55e00"
SERIES = (ACCENT, "#e08214", "#009e73", "#cc79a7", "#7b6fc4", "#56b4e9", OTHER)
"""Colours of models in a chart of lines, after Okabe and Ito."""

EpochRow = Mapping[str, int | float | None]
"""A row of `tables.EPOCHS`."""


def blank_chart(x_label: str = "", y_label: str = "", **more: Any) -> figure:
    """Return an empty chart as wide as its place."""
    given: dict[str, Any] = {"height": 260, "sizing_mode": "stretch_width", "min_border_right": 12}
    plot = figure(tools="box_zoom,pan,reset,save", active_drag=None, **({"toolbar_location": None} | given | more))
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    plot.xaxis.axis_label, plot.yaxis.axis_label = x_label or None, y_label or None
    for axis in plot.axis:
        axis.minor_tick_line_color = None
        axis.axis_label_text_font_style = "normal"
    plot.outline_line_color = None
    return plot


def quiet_legend(plot: figure) -> None:
    """Let the legend be clicked to hide a line, and give it no box."""
    legend = plot.legend[0]
    legend.click_policy, legend.border_line_color, legend.background_fill_alpha = "hide", None, 0.0
    legend.label_text_color = OTHER
    legend.label_text_font_size, legend.spacing = "12px", 0


def score_charts(table: ScoreTable, highlight: str) -> list[ReportChart]:
    """Draw PCC, a chart per gene set and a bar per model: whiskers are the 95 % interval, a diamond the null with 2 sd.

    The highlighted model has its own colour; all others share one. All charts have the same scale.
    """
    columns = [column for column in table.columns if column[0] == "PCC"]
    rows = {column: [table.cells.get((model, column)) for model in table.models] for column in columns}
    ends = [end for cells in rows.values() for row in cells if row is not None for end in _ends(row)] or [0.0, 1.0]
    low, high = min(0.0, *ends), max(0.05, *ends)
    margin = 0.04 * (high - low)
    return [
        ReportChart(
            f"PCC, {column[1]}" + (" genes" if column[1] == "all" else ""),
            _bars(table.models, cells, highlight, limits=(low - margin, high + margin)),
            columns=3,
        )
        for column, cells in rows.items()
    ]


def curve_charts(curves: Mapping[str, Sequence[EpochRow]]) -> list[ReportChart]:
    """Draw loss (solid: training, dashed: validation) and PCC by epoch; `curves` is model -> rows of `EPOCHS`.

    A measure that no model recorded has no chart.
    """
    kinds = (
        ("Loss by epoch", "loss", {"train_loss": "solid", "validation_loss": "dashed"}),
        ("PCC on validation by epoch", "PCC", {"validation_pcc": "solid"}),
    )
    charts = []
    for title, label, columns in kinds:
        plot = blank_chart("epoch", label, height=280)
        plot.xaxis[0].ticker = BasicTicker(min_interval=1)
        lines = list(_lines(curves, columns))
        for name, epochs, values, style in lines:
            source = ColumnDataSource({"epoch": epochs, "value": values, "name": [plain(name[0])] * len(epochs)})
            colour = SERIES[list(curves).index(name[0]) % len(SERIES)]
            legend = plain(", ".join(part for part in name if part))
            plot.line("epoch", "value", source=source, color=colour, line_dash=style, line_width=2, legend_label=legend)
            plot.scatter("epoch", "value", source=source, color=colour, size=4)
        if lines:
            plot.add_tools(HoverTool(tooltips=[("", "@name"), ("epoch", "@epoch"), (label, "@value{0.0000}")]))
            quiet_legend(plot)
            charts.append(ReportChart(title, plot, columns=2))
    return charts


def case_charts(
    panels: Sequence[tuple[str, Float[np.ndarray, "case"], Float[np.ndarray, "case"]]], cases: Sequence[str]
) -> list[ReportChart]:
    """Draw predicted against measured, a point per case; a chart per (title, measured, predicted)."""
    charts = []
    for title, measured, predicted in panels:
        plot = blank_chart("measured", "predicted", height=300)
        both = np.concatenate([measured, predicted])
        ends = [float(both.min()), float(both.max())]
        plot.line(ends, ends, color=OTHER, line_dash="dashed")
        points = {"case": [plain(case) for case in cases], "x": measured.tolist(), "y": predicted.tolist()}
        dots = plot.scatter("x", "y", source=ColumnDataSource(points), size=7, color=ACCENT, alpha=0.8)
        shown = [("", "@case"), ("measured", "@x{0.000}"), ("predicted", "@y{0.000}")]
        plot.add_tools(HoverTool(renderers=[dots], tooltips=shown))
        charts.append(ReportChart(title, plot, columns=3))
    return charts


def _bars(
    models: Sequence[str], cells: Sequence[ScoreRow | None], highlight: str, *, limits: tuple[float, float]
) -> figure:
    names = [plain(model) for model in models]
    plot = blank_chart(
        height=64 + 24 * len(names), y_range=FactorRange(factors=names[::-1]), x_range=limits, min_border_top=4
    )
    known = [(name, model, row) for name, model, row in zip(names, models, cells, strict=True) if row is not None]
    source = ColumnDataSource(
        {
            "model": [name for name, *_ in known],
            "value": [row.value for *_, row in known],
            "colour": [ACCENT if model == highlight else OTHER for _, model, _ in known],
            "interval": [interval_text(row) or "none" for *_, row in known],
            "null": [null_text(row) or "none" for *_, row in known],
        }
    )
    bars = plot.hbar(
        "model", right="value", height=0.6, fill_color="colour", fill_alpha=0.45, line_color=None, source=source
    )
    shown = [("", "@model"), ("PCC", "@value{0.000}"), ("95 % interval", "@interval"), ("permuted labels", "@null")]
    plot.add_tools(HoverTool(renderers=[bars], tooltips=shown))
    for colour, own in ((ACCENT, True), (OTHER, False)):
        shown_rows = [(name, row.low, row.high) for name, model, row in known if (model == highlight) == own]
        _whiskers(plot, shown_rows, colour)
    nulls = [(name, row.null_mean, 2 * (row.null_sd or 0.0)) for name, _, row in known if row.null_mean is not None]
    plot.segment(
        [mean - wide for _, mean, wide in nulls], [name for name, *_ in nulls],
        [mean + wide for _, mean, wide in nulls], [name for name, *_ in nulls], color=NULL, line_width=1.5,
    )  # fmt: skip
    plot.scatter([mean for _, mean, _ in nulls], [name for name, *_ in nulls], marker="diamond", size=8, color=NULL)
    missing = [name for name, row in zip(names, cells, strict=True) if row is None]
    plot.text(
        [0.0] * len(missing), missing, ["n/a"] * len(missing), text_color=OTHER, text_font_size="11px", y_offset=6
    )
    plot.add_layout(Span(location=0, dimension="height", line_color=OTHER, line_width=1))
    plot.ygrid.grid_line_color = None
    return plot


def _whiskers(plot: figure, intervals: Sequence[tuple[str, float | None, float | None]], colour: str) -> None:
    known = [(name, low, high) for name, low, high in intervals if low is not None and high is not None]
    names = [name for name, *_ in known]
    lows, highs = [low for _, low, _ in known], [high for *_, high in known]
    plot.segment(lows, names, highs, names, color=colour, line_width=2)
    for ends in (lows, highs):
        plot.scatter(ends, names, marker="dash", angle=np.pi / 2, size=8, color=colour, line_width=2)


def _ends(row: ScoreRow) -> list[float]:
    wide = 2 * (row.null_sd or 0.0)
    null = [] if row.null_mean is None else [row.null_mean - wide, row.null_mean + wide]
    return [row.value, *null, *(end for end in (row.low, row.high) if end is not None)]


def _lines(
    curves: Mapping[str, Sequence[EpochRow]], columns: Mapping[str, str]
) -> Iterator[tuple[tuple[str, str], list[Any], list[Any], str]]:
    """Yield the model and the kind of each recorded measure, its epochs, its values and the line's style."""
    for model, rows in curves.items():
        for column, style in columns.items():
            known = [(row["epoch"], row[column]) for row in rows if row[column] is not None]
            if known:
                epochs, values = map(list, zip(*known, strict=True))
                yield (model, column.split("_")[0] if len(columns) > 1 else ""), epochs, values, style
