"""Charts of the genes of a panel: each gene's score, found by typing its name, and how genes vary together."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, CustomJS, FactorRange, HoverTool, InlineStyleSheet, LinearColorMapper
from bokeh.models.annotations import ColorBar
from bokeh.models.layouts import Column
from bokeh.models.widgets import AutocompleteInput, Div
from bokeh.palettes import PuOr11
from jaxtyping import Float, Float64, Int64
from scipy.cluster.hierarchy import leaves_list, linkage

from raystp.evaluate.metrics.genes import FEWEST_SPOTS
from raystp.evaluate.metrics.score import MEAN, SectionOutcome
from raystp.evaluate.report.charts import ACCENT, NULL, OTHER, blank_chart, quiet_legend
from raystp.evaluate.report.interactive import GENE_FIELD, plain
from raystp.evaluate.report.parts import ReportChart
from raystp.missing import column_means

Outcomes = Mapping[str, SectionOutcome]
"""Section -> predicted beside measured expression."""

PAIRED_GENES = 40
"""Genes whose pairs are drawn: those that vary most in the measurement."""

SQUARE = {"width": 560, "height": 500, "sizing_mode": "scale_width"}
"""Size of charts that keep their shape where the page is narrow."""

FEWEST_GENES = 3
"""Two genes are one pair, and no picture."""

_FIELD = """
.bk-input { background-color: var(--background); color: var(--text); border-color: var(--line); font-size: 14px; }
.bk-menu { background-color: var(--soft); color: var(--text); border-color: var(--line); }
.bk-menu > .bk-active { background-color: var(--accent); color: var(--background); }
"""
"""A field for typing in the page's own colours."""

_FIND = """
const at = source.data.gene.indexOf(cb_obj.value)
if (at < 0) return
const {rank, value, other} = source.data
found.data = {rank: [rank[at]], value: [value[at]]}
const shown = (x) => Number.isFinite(x) ? x.toFixed(3) : "n/a"
answer.text = `${cb_obj.value}: rank ${rank[at]} of ${rank.length}, PCC ${shown(value[at])}` +
  (other_name ? `; ${other_name} ${shown(other[at])}` : "")
for (const view of cb_context.index.all_views()) {
  if (view.model.name !== maps) continue
  view.model.value = cb_obj.value
  answer.text += "; the maps above show it"
}
"""


def gene_score_chart(
    genes: Sequence[str],
    model: tuple[str, Float[np.ndarray, "gene"]],
    other: tuple[str, Float[np.ndarray, "gene"]],
    over: str = MEAN,
) -> ReportChart:
    """Draw the PCC of each gene, sorted, of a model and of the one that it is compared with; each is (name, PCC).

    Genes without a PCC are last, and can be found too.
    """
    values, others = model[1], other[1]
    order = np.lexsort((np.asarray(genes), -np.nan_to_num(values, nan=-np.inf)))
    has_other = other[0] != model[0]
    names = [plain(genes[number]) for number in order.tolist()]
    source = ColumnDataSource(
        {
            "gene": names,
            "rank": np.arange(1, len(genes) + 1),
            "value": values[order].astype(np.float32),
            "other": others[order].astype(np.float32),
        }
    )
    plot = blank_chart("genes, sorted", "PCC", height=300, toolbar_location="above")
    if has_other:
        plot.scatter("rank", "other", source=source, size=4, color=OTHER, alpha=0.6, legend_label=plain(other[0]))
    dots = plot.scatter("rank", "value", source=source, size=5, color=ACCENT, legend_label=plain(model[0]))
    shown = [("", "@gene"), ("rank", "@rank"), (plain(model[0]), "@value{0.000}")]
    plot.add_tools(
        HoverTool(renderers=[dots], tooltips=shown + ([(plain(other[0]), "@other{0.000}")] if has_other else []))
    )
    quiet_legend(plot)
    plot.legend[0].orientation = "horizontal"
    found = ColumnDataSource({"rank": [], "value": []})
    plot.scatter("rank", "value", source=found, size=14, line_color=NULL, line_width=2.5, fill_alpha=0.0)
    search = AutocompleteInput(
        title="Find a gene", placeholder="type a name", completions=names, case_sensitive=False,
        search_strategy="includes", min_characters=1, width=240, margin=0, name="gene-score-search",
        stylesheets=[InlineStyleSheet(css=_FIELD)],
    )  # fmt: skip
    answer = Div(text="", render_as_text=True, margin=(4, 0, 0, 0), name="gene-score-answer")
    known = {
        "source": source,
        "found": found,
        "answer": answer,
        "other_name": other[0] if has_other else "",
        "maps": GENE_FIELD,
    }
    search.js_on_change("value", CustomJS(args=known, code=_FIND))
    where = "mean over sections" if over == MEAN else f"over {over}"
    return ReportChart(
        "PCC of each gene", Column(children=[search, answer, plot], sizing_mode="stretch_width"),
        f"{int(np.isfinite(values).sum())} of {len(genes)} genes have a PCC, {where}.",
    )  # fmt: skip


def gene_pair_charts(genes: Sequence[str], outcomes: Outcomes, name: str) -> list[ReportChart]:
    """Draw the correlation of pairs of genes over spots, measured against predicted; nothing for under three genes."""
    chosen = _most_variable(outcomes)
    if len(chosen) < FEWEST_GENES:
        return []
    measured, predicted = pair_correlations(outcomes, chosen)
    order = _similar_together(measured)
    measured, predicted = (matrix[np.ix_(order, order)] for matrix in (measured, predicted))
    names = [plain(genes[number]) for number in chosen[order].tolist()]
    upper = np.triu_indices(len(names), 1)
    return [
        _matrix(names, measured, predicted, f"{len(names)} most variable genes, similar genes together."),
        _pairs(names, measured[upper], predicted[upper], name),
    ]


def pair_correlations(
    outcomes: Outcomes, columns: Int64[np.ndarray, "gene"]
) -> tuple[Float64[np.ndarray, "gene gene"], Float64[np.ndarray, "gene gene"]]:
    """Return the PCC over spots of each pair of these genes, measured and predicted, each the mean over sections.

    A section in which a pair has no measured PCC is in neither mean. NaN for a gene that no section measured, that is
    constant, or that sections of few spots alone have.
    """
    found = []
    for one in outcomes.values():
        measured = one.measured[:, columns]
        predicted = np.where(np.isnan(measured), np.nan, one.predicted[:, columns])
        pair = np.stack([_correlations(measured), _correlations(predicted)])
        pair[1, np.isnan(pair[0])] = np.nan
        found.append(pair.ravel())
    both = column_means(np.stack(found)).reshape(2, len(columns), len(columns))
    return both[0], both[1]


def _correlations(values: Float[np.ndarray, "spot gene"]) -> Float64[np.ndarray, "gene gene"]:
    """Return the PCC of each pair of columns; NaN for a column with a missing value or without variation."""
    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    norm = np.sqrt((centred**2).sum(axis=0))
    usable = (norm > 0) & (len(values) >= FEWEST_SPOTS)  # NaN is not above 0
    scaled = np.divide(centred, norm, out=np.full_like(centred, np.nan), where=usable)
    correlations: Float64[np.ndarray, "gene gene"] = np.clip(scaled.T @ scaled, -1.0, 1.0)
    return correlations


def _most_variable(outcomes: Outcomes) -> Int64[np.ndarray, "gene"]:
    """Return the columns that vary most in the measurement, mean over sections, in the panel's order."""
    variance = column_means(np.stack([one.measured.var(axis=0, dtype=np.float64) for one in outcomes.values()]))
    ranked = np.argsort(-np.nan_to_num(variance), kind="stable")[:PAIRED_GENES]
    kept: Int64[np.ndarray, " gene"] = np.sort(ranked[np.nan_to_num(variance[ranked]) > 0]).astype(np.int64)
    return kept


def _similar_together(correlation: Float64[np.ndarray, "gene gene"]) -> Int64[np.ndarray, "gene"]:
    """Return an order of genes by average linkage of 1 - PCC."""
    distance = 1.0 - np.nan_to_num(correlation)
    order: Int64[np.ndarray, " gene"] = leaves_list(
        linkage(distance[np.triu_indices(len(distance), 1)], "average")
    ).astype(np.int64)
    return order


def _matrix(names: list[str], measured: Any, predicted: Any, note: str) -> ReportChart:
    """Draw both as one square: measured above the diagonal, predicted below."""
    size = len(names)
    rows, columns = (axis.ravel() for axis in np.indices((size, size)))
    above = columns > rows
    shown = np.where(above, measured.ravel(), predicted.ravel())
    kept = (rows != columns) & np.isfinite(shown)
    source = ColumnDataSource(
        {
            "x": [names[at] for at in columns[kept]],
            "y": [names[at] for at in rows[kept]],
            "kind": np.where(above, "measured", "predicted")[kept].tolist(),
            "shown": shown[kept].astype(np.float32),
            "measured": measured.ravel()[kept].astype(np.float32),
            "predicted": predicted.ravel()[kept].astype(np.float32),
        }
    )
    mapper = LinearColorMapper(palette=list(PuOr11)[::-1], low=-1.0, high=1.0)
    plot = blank_chart(
        height=520,
        x_range=FactorRange(factors=names),
        y_range=FactorRange(factors=names[::-1]),
        x_axis_location="above",
    )
    cells = plot.rect(
        "x", "y", 1.0, 1.0, source=source, fill_color={"field": "shown", "transform": mapper}, line_color=None
    )
    plot.add_tools(
        HoverTool(
            renderers=[cells],
            tooltips=[("", "@y and @x"), ("measured", "@measured{0.00}"), ("predicted", "@predicted{0.00}")],
        )
    )
    plot.xaxis.visible = False  # the names are those of the rows
    plot.yaxis.major_label_text_font_size = "8px" if size > 20 else "11px"  # noqa: PLR2004 -- a name per 11 px
    plot.axis.major_tick_line_color = None
    plot.grid.grid_line_color = None
    bar = ColorBar(color_mapper=mapper, width=10, title=None, margin=4, major_label_text_color=OTHER)
    plot.add_layout(bar, "right")
    caption = f"Above the diagonal: measured. Below: predicted. {note} A mirror image is a right prediction."
    return ReportChart("Correlation of genes over spots", plot, caption, columns=2)


def _pairs(names: list[str], measured: Any, predicted: Any, model: str) -> ReportChart:
    """Draw each pair of genes as a point, measured against predicted."""
    first, second = np.triu_indices(len(names), 1)
    kept = np.isfinite(measured) & np.isfinite(predicted)
    source = ColumnDataSource(
        {
            "pair": [f"{names[a]} and {names[b]}" for a, b in zip(first[kept], second[kept], strict=True)],
            "x": measured[kept].astype(np.float32),
            "y": predicted[kept].astype(np.float32),
        }
    )
    plot = blank_chart("measured", "predicted", **SQUARE, x_range=(-1.03, 1.03), y_range=(-1.03, 1.03))
    plot.line([-1, 1], [-1, 1], color=OTHER, line_dash="dashed")
    dots = plot.scatter("x", "y", source=source, size=4, color=ACCENT, alpha=0.5)
    plot.add_tools(
        HoverTool(renderers=[dots], tooltips=[("", "@pair"), ("measured", "@x{0.00}"), ("predicted", "@y{0.00}")])
    )
    wider = float(np.mean(np.abs(predicted[kept]) > np.abs(measured[kept]))) if kept.any() else 0.0
    caption = (
        f"A point per pair of genes. {model} predicts a stronger correlation than was measured for {wider:.0%} of "
        "pairs: noise weakens measured correlations, and smooth predictions strengthen them."
    )
    return ReportChart("Pairs of genes, measured against predicted", plot, caption, columns=2)
