"""Charts of scores and of training, built without pyplot like the pictures of tissue."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raystp.evaluate.metrics.score import Row
from raystp.evaluate.report.board import ScoreTable

MODEL, OTHER, NULL = "#1f77b4", "#9aa5b1", "#c0392b"


def scores_figure(board: ScoreTable, highlight: str) -> Figure:
    """Draw PCC per gene set as bars, one line per model: 95 % interval as whiskers, null as a diamond with 2 sd.

    The highlighted model has its own colour; the others, the baselines among them, share one.
    """
    columns = [column for column in board.columns if column[0] == "PCC"]
    size = (2.0 + 2.6 * len(columns), 1.5 + 0.34 * len(board.models))
    figure = Figure(figsize=size, layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(columns), sharex=True, sharey=True))
    for at, column in zip(axes, columns, strict=True):
        cells = [board.cells.get((model, column)) for model in board.models]
        _bars(at, cells, [MODEL if model == highlight else OTHER for model in board.models])
        at.set(title=f"{column[1]} genes" if column[1] == "all" else column[1], xlabel="PCC")
    axes[0].set_yticks(range(len(board.models)), board.models)
    axes[0].invert_yaxis()
    figure.suptitle(f"protocol {board.protocol}, {board.section} (whiskers: 95 %, red: null ± 2 sd)", fontsize=10)
    return figure


def curve_figure(curves: dict[str, Sequence[Row]]) -> Figure:
    """Draw loss (solid: training, dashed: validation) and PCC by epoch, from rows of `tables.EPOCHS` per model."""
    figure = Figure(figsize=(8.5, 3.2), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    for at, (model, rows) in enumerate(curves.items()):
        colour = f"C{at % 10}"
        for column, axes, style in (
            ("train_loss", losses, "-"),
            ("validation_loss", losses, "--"),
            ("validation_pcc", scores, "-"),
        ):
            known = [(row["epoch"], row[column]) for row in rows if row[column] is not None]
            if known:
                name = f"{model}, {column.replace('_', ' ')}"
                axes.plot(*zip(*known, strict=True), style, marker=".", color=colour, label=name)
    for axes, label in ((losses, "loss"), (scores, "PCC on validation")):
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=7, frameon=False)
        else:
            axes.text(0.5, 0.5, "not measured in training", ha="center", va="center", transform=axes.transAxes)
    return figure


def _bars(at: Axes, cells: list[Row | None], colours: list[str]) -> None:
    for line, (row, colour) in enumerate(zip(cells, colours, strict=True)):
        if row is None:
            at.text(0.0, line, " n/a", va="center", fontsize=8)
            continue
        value = row["value"]
        at.barh(line, value, color=colour, height=0.7)
        if row["low"] is not None:
            at.plot([row["low"], row["high"]], [line, line], color="black", linewidth=1.2, marker="|")
        if row["null_mean"] is not None:
            at.errorbar(row["null_mean"], line, xerr=2 * (row["null_sd"] or 0.0), color=NULL, fmt="D", markersize=4)
    at.axvline(0.0, color="black", linewidth=0.8)
    at.grid(axis="x", alpha=0.3)
    at.set_axisbelow(True)
