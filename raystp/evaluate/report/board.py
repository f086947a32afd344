"""The score board: one line per model, one column per metric and gene set, from rows of the scores table."""

from collections.abc import Sequence
from dataclasses import dataclass

from raystp.evaluate.metrics.score import MEAN, Row

Column = tuple[str, str]
"""Metric and gene set."""

ERRORS = (("MSE", "all"), ("MAE", "all"))


@dataclass(frozen=True)
class ScoreTable:
    """The rows of one protocol, one panel and one section (or `mean`, `pooled`), in order of first appearance."""

    protocol: str
    panel: str
    section: str
    models: list[str]
    columns: list[Column]
    cells: dict[tuple[str, Column], Row]


def boards(rows: Sequence[Row], section: str = MEAN, more: Sequence[Column] = ()) -> list[ScoreTable]:
    """Return a board per protocol and panel: PCC of every gene set, then MSE and MAE over all genes, then `more`."""
    kinds = list(dict.fromkeys((str(row["protocol"]), str(row["panel"])) for row in rows))
    return [_board([row for row in rows if (row["protocol"], row["panel"]) == kind], section, more) for kind in kinds]


def _board(rows: list[Row], section: str, more: Sequence[Column]) -> ScoreTable:
    here = [row for row in rows if row["section"] == section]
    cells = {(str(row["model"]), (str(row["metric"]), str(row["genes"]))): row for row in here}
    pcc = dict.fromkeys(column for _, column in cells if column[0] == "PCC")
    there = {column for _, column in cells}
    return ScoreTable(
        protocol=str(rows[0]["protocol"]),
        panel=str(rows[0]["panel"]),
        section=section,
        models=list(dict.fromkeys(model for model, _ in cells)),
        columns=[*pcc, *(column for column in (*ERRORS, *more) if column in there)],
        cells=cells,
    )


def with_interval(row: Row) -> str:
    """Return a value and, where it has one, its interval: `0.187 [0.150, 0.220]`."""
    return f"{row['value']:.3f} {interval_of(row)}".rstrip()


def interval_of(row: Row) -> str:
    """Return the interval of a value, `[0.150, 0.220]`, or nothing."""
    return "" if row["low"] is None else f"[{row['low']:.3f}, {row['high']:.3f}]"


def null_of(row: Row) -> str:
    """Return the null of a value, `0.001 ± 0.012` (mean and standard deviation over permutations), or nothing."""
    if row["null_mean"] is None:
        return ""
    return f"{row['null_mean']:.3f}" + ("" if row["null_sd"] is None else f" ± {row['null_sd']:.3f}")


def score_table_text(rows: Sequence[Row], section: str = MEAN) -> str:
    """Return the board as aligned plain text: intervals beside each PCC, the null on a line of its own below."""
    return "\n\n".join(_text(board) for board in boards(rows, section))


def _text(board: ScoreTable) -> str:
    over = "mean over sections" if board.section == MEAN else board.section
    lines = [["model", *(heading(column) for column in board.columns)]]
    for model in board.models:
        found = [board.cells.get((model, column)) for column in board.columns]
        lines.append([model, *(_short(row) for row in found)])
        nulls = ["" if row is None else null_of(row) for row in found]
        if any(nulls):
            lines.append(["  null", *nulls])
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    body = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    title = f"protocol {board.protocol}, panel {board.panel}, {over}, [bootstrap 95 % interval]"
    return "\n".join([title, body[0], "-" * len(body[0]), *body[1:]])


def heading(column: Column) -> str:
    """Return a column's heading: `PCC HEG-50`, and plain `MSE` for an error over all genes."""
    metric, genes = column
    return metric if genes == "all" and metric != "PCC" else f"{metric} {genes}"


def _short(row: Row | None) -> str:
    if row is None:
        return "n/a"
    return with_interval(row) if row["metric"] == "PCC" else f"{row['value']:.3f}"
