"""Score tables: one line per model, one column per metric and gene set, from rows of the scores table.

As a value (for the page and the charts), and as aligned text (for the terminal).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from raystp.evaluate.metrics.cases import FEWEST_CASES, TOP_PICKED, WELL_PREDICTED
from raystp.evaluate.metrics.score import MEAN, ScoreRow

Column = tuple[str, str]
"""Metric and gene set."""

ERRORS: Sequence[Column] = (("MSE", "all"), ("MAE", "all"), ("spread", "all"))
ABSENT = "n/a"


@dataclass(frozen=True)
class ScoreTable:
    """The rows of one protocol, one panel and one section (or `mean`, `pooled`), in order of first appearance."""

    protocol: str
    panel: str
    section: str
    models: list[str]
    columns: list[Column]
    cells: dict[tuple[str, Column], ScoreRow]


def score_tables(rows: Sequence[ScoreRow], section: str = MEAN, extra: Sequence[Column] = ()) -> list[ScoreTable]:
    """Return a table per protocol and panel.

    Columns: PCC of each gene set, then MSE, MAE and spread over all genes, then the `extra` columns that have a value.
    """
    return [_table(group, section, extra) for group in by_panel(rows)]


def by_panel(rows: Sequence[ScoreRow]) -> list[list[ScoreRow]]:
    """Group rows by protocol and panel, in order of first appearance."""
    groups: dict[tuple[str, str], list[ScoreRow]] = {}
    for row in rows:
        groups.setdefault((row.protocol, row.panel), []).append(row)
    return list(groups.values())


def _table(rows: list[ScoreRow], section: str, extra: Sequence[Column]) -> ScoreTable:
    cells = {(row.model, (row.metric, row.genes)): row for row in rows if row.section == section}
    pcc = dict.fromkeys(column for _, column in cells if column[0] == "PCC")
    existing = {column for _, column in cells}
    return ScoreTable(
        protocol=rows[0].protocol,
        panel=rows[0].panel,
        section=section,
        models=list(dict.fromkeys(model for model, _ in cells)),
        columns=[*pcc, *(column for column in (*ERRORS, *extra) if column in existing)],
        cells=cells,
    )


def with_interval(row: ScoreRow) -> str:
    """Return a value and its interval, if there is one: `0.187 [0.150, 0.220]`; `n/a` for NaN."""
    return ABSENT if isnan(row.value) else f"{row.value:.3f} {interval_text(row)}".rstrip()


def interval_text(row: ScoreRow) -> str:
    """Return the interval of a value, `[0.150, 0.220]`, or nothing."""
    return "" if row.low is None or row.high is None else f"[{row.low:.3f}, {row.high:.3f}]"


def null_text(row: ScoreRow) -> str:
    """Return the permutation null of a value, `0.001 ± 0.012` (mean and standard deviation), or nothing."""
    if row.null_mean is None:
        return ""
    return f"{row.null_mean:.3f}" + ("" if row.null_sd is None else f" ± {row.null_sd:.3f}")


def heading(column: Column) -> str:
    """Return a column's heading: `PCC HEG-50`, and only `MSE` for an error over all genes."""
    metric, genes = column
    return metric if genes == "all" and metric != "PCC" else f"{metric} {genes}"


def spots_text(rows: Sequence[ScoreRow], section: str = MEAN) -> str:
    """Return scores over spots as aligned text: intervals beside each PCC, the null on the next line."""
    over = "mean over sections" if section == MEAN else section
    texts = []
    for table in score_tables(rows, section):
        lines = [["model", *(heading(column) for column in table.columns)]]
        for model in table.models:
            found = [table.cells.get((model, column)) for column in table.columns]
            shown = [_with_pcc_interval(row) for row in found]
            lines += _model_lines(model, shown, found)
        texts.append(_text(f"protocol {table.protocol}, panel {table.panel}, {over}", lines))
    return "\n\n".join(texts)


def cases_text(rows: Sequence[ScoreRow], models: Sequence[str], cases: int) -> str:
    """Return scores over cases as aligned text: PCC and AUC of each gene set, MSE; the null on the next line."""
    sets = list(dict.fromkeys(row.genes for row in rows))
    columns = [("PCC", genes) for genes in sets] + [("AUC", genes) for genes in sets if genes != TOP_PICKED]
    columns += [("MSE", "all"), (WELL_PREDICTED, "all")]
    cells = {(row.model, row.metric, row.genes): row for row in rows}
    alone = ("MSE", WELL_PREDICTED)
    lines = [["model", *(metric if metric in alone else f"{metric} {genes}" for metric, genes in columns)]]
    for model in models:
        found = [cells.get((model, *column)) for column in columns]
        lines += _model_lines(model, [_case_cell(row) for row in found], found)
    few = f" (n/a: PCC and AUC need {FEWEST_CASES})" if cases < FEWEST_CASES else ""
    return _text(f"protocol {rows[0].protocol}, panel {rows[0].panel}, over {cases} held-out cases{few}", lines)


def _case_cell(row: ScoreRow | None) -> str:
    if row is None:
        return ABSENT
    return f"{row.value:.0f}" if row.metric == WELL_PREDICTED else with_interval(row)


def _with_pcc_interval(row: ScoreRow | None) -> str:
    if row is None:
        return ABSENT
    return with_interval(row) if row.metric == "PCC" else f"{row.value:.3f}"


def _model_lines(model: str, shown: list[str], rows: list[ScoreRow | None]) -> list[list[str]]:
    nulls = ["" if row is None else null_text(row) for row in rows]
    return [[model, *shown], *([["  null", *nulls]] if any(nulls) else [])]


def _text(title: str, lines: list[list[str]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    body = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([f"{title}, [bootstrap 95 % interval]", body[0], "-" * len(body[0]), *body[1:]])
