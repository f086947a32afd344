"""Scores over cases as text, and each gene's own as a CSV that a spreadsheet opens."""

import csv
import io
from collections.abc import Mapping, Sequence

import numpy as np

from raystp.evaluate.metrics.cases import FEWEST_CASES, CaseOutcome, auc_at_median
from raystp.evaluate.metrics.genes import mse, pcc_per_gene
from raystp.evaluate.metrics.score import Row
from raystp.evaluate.report.board import null_of, with_interval

ABSENT = "n/a"


def case_table(rows: Sequence[Row], outcomes: Mapping[str, CaseOutcome]) -> str:
    """Return one line per model: PCC of each gene set with its interval, AUC and MSE; the null on a line below."""
    sets = list(dict.fromkeys(str(row["genes"]) for row in rows))
    columns = [("PCC", genes) for genes in sets] + [("AUC", genes) for genes in sets] + [("MSE", "all")]
    cells = {(row["model"], row["metric"], row["genes"]): row for row in rows}
    lines = [["model", *(metric if metric == "MSE" else f"{metric} {genes}" for metric, genes in columns)]]
    for model in outcomes:
        found = [cells.get((model, *column)) for column in columns]
        lines.append([model, *(ABSENT if row is None else with_interval(row) for row in found)])
        nulls = ["" if row is None else null_of(row) for row in found]
        lines += [["  null", *nulls]] if any(nulls) else []
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    body = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    count = len(next(iter(outcomes.values())).cases)
    few = f" (n/a: PCC and AUC need {FEWEST_CASES})" if count < FEWEST_CASES else ""
    title = f"protocol {rows[0]['protocol']}, panel {rows[0]['panel']}, over {count} held-out cases{few}"
    return "\n".join([f"{title}, [bootstrap 95 % interval]", body[0], "-" * len(body[0]), *body[1:]])


def genes_table(outcomes: Mapping[str, CaseOutcome], genes: Sequence[str]) -> str:
    """Return a CSV of each model's PCC, AUC and MSE for each gene; empty where it does not exist."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["model", "gene", "cases", "pcc", "auc_at_median", "mse"])
    for model, one in outcomes.items():
        enough = len(one.cases) >= FEWEST_CASES
        pcc = pcc_per_gene(one.predicted, one.measured)[0]
        auc, error = auc_at_median(one.predicted, one.measured), mse(one.predicted, one.measured)
        for number, gene in enumerate(genes):
            values = [pcc[number], auc[number]] if enough else [np.nan, np.nan]
            shown = ["" if np.isnan(value) else f"{value:.6g}" for value in (*values, error[number])]
            writer.writerow([model, gene, len(one.cases), *shown])
    return out.getvalue()
