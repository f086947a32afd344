"""Calibration of spread and `far` for the terminal and the report: sentences, tables, and a chart."""

from collections.abc import Sequence

from bokeh.models import HoverTool, Range1d

from raystp.evaluate.metrics.score import POOLED
from raystp.evaluate.reliability.far import FarScore
from raystp.evaluate.reliability.spread import NOMINAL, ONE_SPREAD, SpreadCoverage, within_normal
from raystp.evaluate.report.charts import OTHER, SERIES, blank_chart, quiet_legend
from raystp.evaluate.report.interactive import plain
from raystp.evaluate.report.parts import ReportChart, ReportPart, ReportTable

ABSENT = "n/a"
TWO_SPREADS = within_normal(2.0)

CLOSE = 0.05
"""A share within so much of a normal spread's is called about right."""

SPREAD_NOTE = (
    f"Share of measured values within 1 and 2 spreads of the prediction; a normal spread has {ONE_SPREAD:.1%} and "
    f"{TWO_SPREADS:.1%}. Fewer: predictions are less certain than their spread says. Factor: the spread times this "
    f"holds {ONE_SPREAD:.1%}."
)
FAR_NOTE = (
    "Far: farther from the reference index than 99 % of its own tiles. Rank correlation of a tile's distance and its "
    "squared error: above 0 if predictions get worse with the distance. PCC needs 10 tiles."
)


def reliability_lines(spreads: Sequence[SpreadCoverage], far: Sequence[FarScore]) -> list[str]:
    """Return a sentence on the spread and one on `far` of each model, over all sections."""
    lines = [
        f"`{one.model}` spread: {one.within_1:.1%} of {one.values} measured values are within 1 spread of the "
        f"prediction and {one.within_2:.1%} within 2 (normal: {ONE_SPREAD:.1%} and {TWO_SPREADS:.1%}): {_judged(one)}."
        for one in spreads
        if one.section == POOLED
    ]
    return lines + [_far_line(one) for one in far if one.section == POOLED]


def reliability_parts(spreads: Sequence[SpreadCoverage], far: Sequence[FarScore]) -> list[ReportPart]:
    """Return the tables that have rows, and the chart of observed against normal shares."""
    parts: list[ReportPart] = []
    if spreads:
        columns = ["model", "section", "values", "within 1", "within 2", "factor", "spread 0"]
        rows = [
            [
                one.model,
                one.section,
                str(one.values),
                f"{one.within_1:.1%}",
                f"{one.within_2:.1%}",
                _text(one.factor, 2),
                str(one.zero),
            ]
            for one in spreads
        ]
        parts += [ReportTable("Spread of the predictions", columns, rows, SPREAD_NOTE), _chart(spreads)]
    if far:
        columns = ["model", "section", "far", "near", "MSE far", "MSE near", "PCC far", "PCC near", "rank correlation"]
        cells = [
            [one.model, one.section, str(one.far), str(one.near)]
            + [_text(value) for value in (one.mse_far, one.mse_near, one.pcc_far, one.pcc_near, one.rank_correlation)]
            for one in far
        ]
        parts.append(ReportTable("Tiles far from the reference", columns, cells, FAR_NOTE))
    return parts


def _judged(one: SpreadCoverage) -> str:
    difference = one.within_1 - ONE_SPREAD
    if abs(difference) <= CLOSE:
        return "about right"
    return "too wide" if difference > 0 else "too narrow"


def _far_line(one: FarScore) -> str:
    if not one.far:
        return f"`{one.model}` far: none of {one.near} measured tiles is far from the reference index."
    rank = f", rank correlation of distance and error {_text(one.rank_correlation)}"
    return (
        f"`{one.model}` far: MSE {_text(one.mse_far)} on {one.far} far tiles, {_text(one.mse_near)} on {one.near} near "
        f"ones{rank}."
    )


def _text(value: float | None, digits: int = 3) -> str:
    return ABSENT if value is None else f"{value:.{digits}f}"


def _chart(spreads: Sequence[SpreadCoverage]) -> ReportChart:
    """Draw observed against normal shares, a line per model, pooled over sections."""
    limits = {"x_range": Range1d(start=0, end=1), "y_range": Range1d(start=0, end=1)}
    plot = blank_chart("share within a normal spread", "observed share", height=320, **limits)
    plot.line([0, 1], [0, 1], line_dash="dashed", color=OTHER, legend_label="a normal spread")
    pooled = [one for one in spreads if one.section == POOLED]
    for number, one in enumerate(pooled):
        colour = SERIES[number % len(SERIES)]
        name = plain(one.model)
        plot.line(NOMINAL, one.shares, color=colour, line_width=2, legend_label=name)
        plot.scatter(NOMINAL, one.shares, color=colour, size=7, name=name)
    plot.add_tools(HoverTool(tooltips=[("model", "$name"), ("normal", "@x{0.00}"), ("observed", "@y{0.00}")]))
    quiet_legend(plot)
    plot.legend.location = "top_left"
    caption = "Above the dashed line the spread is too wide, below it too narrow."
    return ReportChart("Observed share of truths within the spread, against a normal spread", plot, caption, columns=2)
