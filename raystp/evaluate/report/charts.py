"""Charts of scores and of training, built without pyplot like the figures of slides."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raystp.evaluate.metrics.score import ScoreRow
from raystp.evaluate.report.score_tables import ScoreTable

MODEL, OTHER, NULL = "#1f77b4", "#9aa5b1", "#c0392b"

EpochRow = Mapping[str, int | float | None]
"""A row of `tables.EPOCHS`."""


def scores_figure(table: ScoreTable, highlight: str) -> Figure:
    """Draw PCC per gene set as bars, a bar per model: whiskers are the 95 % interval, a diamond the null with 2 sd.

    The highlighted model has its own colour; all others share one.
    """
    columns = [column for column in table.columns if column[0] == "PCC"]
    size = (2.0 + 2.6 * len(columns), 1.5 + 0.34 * len(table.models))
    figure = Figure(figsize=size, layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(columns), sharex=True, sharey=True))
    for panel, column in zip(axes, columns, strict=True):
        cells = [table.cells.get((model, column)) for model in table.models]
        _bars(panel, cells, [MODEL if model == highlight else OTHER for model in table.models])
        panel.set_title(f"{column[1]} genes" if column[1] == "all" else column[1], parse_math=False)
        panel.set_xlabel("PCC")
    axes[0].set_yticks(range(len(table.models)), table.models, parse_math=False)
    axes[0].invert_yaxis()
    title = f"protocol {table.protocol}, {table.section} (whiskers: 95 % interval, red: null ± 2 sd)"
    figure.suptitle(title, fontsize=10, parse_math=False)
    return figure


def curve_figure(curves: Mapping[str, Sequence[EpochRow]]) -> Figure:
    """Draw loss (solid: training, dashed: validation) and PCC by epoch; `curves` is model -> rows of `EPOCHS`."""
    figure = Figure(figsize=(8.5, 3.2), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    for number, (model, rows) in enumerate(curves.items()):
        for column, panel, style in (
            ("train_loss", losses, "-"),
            ("validation_loss", losses, "--"),
            ("validation_pcc", scores, "-"),
        ):
            known = [(row["epoch"], row[column]) for row in rows if row[column] is not None]
            if known:
                label = f"{model}, {column.replace('_', ' ')}"
                panel.plot(*zip(*known, strict=True), style, marker=".", color=f"C{number % 10}", label=label)
    for panel, label in ((losses, "loss"), (scores, "PCC on validation")):
        panel.set(xlabel="epoch", ylabel=label)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3)
        if panel.lines:
            panel.legend(fontsize=7, frameon=False)
        else:
            panel.text(0.5, 0.5, "not measured in training", ha="center", va="center", transform=panel.transAxes)
    return figure


def cases_figure(panels: Sequence[tuple[str, Float[np.ndarray, "case"], Float[np.ndarray, "case"]]]) -> Figure:
    """Draw predicted against measured, a point per case; a panel per (title, measured, predicted)."""
    figure = Figure(figsize=(3.6 * len(panels), 3.6), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(panels)))
    for panel, (title, measured, predicted) in zip(axes, panels, strict=True):
        both = np.concatenate([measured, predicted])
        ends = [both.min(), both.max()]
        panel.plot(ends, ends, color="#9aa5b1", linewidth=1, zorder=0)
        panel.scatter(measured, predicted, s=22, color="#1f77b4", edgecolor="white", linewidth=0.5)
        panel.set(xlabel="measured", ylabel="predicted", aspect="equal")
        panel.set_title(title, fontsize=10, parse_math=False)
        panel.grid(alpha=0.3)
    return figure


def _bars(panel: Axes, cells: list[ScoreRow | None], colours: list[str]) -> None:
    for line, (row, colour) in enumerate(zip(cells, colours, strict=True)):
        if row is None:
            panel.text(0.0, line, " n/a", va="center", fontsize=8)
            continue
        panel.barh(line, row.value, color=colour, height=0.7)
        if row.low is not None and row.high is not None:
            panel.plot([row.low, row.high], [line, line], color="black", linewidth=1.2, marker="|")
        if row.null_mean is not None:
            panel.errorbar(row.null_mean, line, xerr=2 * (row.null_sd or 0.0), color=NULL, fmt="D", markersize=4)
    panel.axvline(0.0, color="black", linewidth=0.8)
    panel.grid(axis="x", alpha=0.3)
    panel.set_axisbelow(True)
