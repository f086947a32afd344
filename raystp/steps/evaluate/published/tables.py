"""The scores of a published protocol as text, as CSV and as rows of the scores table, with the published figures."""

import csv
import io
from collections.abc import Mapping, Sequence

import numpy as np

from raystp.evaluate.metrics.score import MEAN, ScoreLabel, ScoreRow
from raystp.evaluate.published.protocol import ProtocolScores, PublishedFigure, PublishedProtocol

Scores = Mapping[str, ProtocolScores]
"""Model -> its scores."""

Numbers = Sequence[int]
"""The number of each fold: those of hest-bench begin with 0."""

ABSENT = "n/a"
SECONDARY = "published figures, copied from secondary tables and not checked in the papers"


def protocol_text(protocol: PublishedProtocol, scores: Scores, numbers: Numbers, *, panel: str) -> str:
    """Return a row per fold and model, mean and sd, and below them the figures published under this protocol."""
    first = next(iter(scores.values()))
    metrics = list(first.overall)
    lines = [["model", "fold", *metrics]]
    for model, one in scores.items():
        lines += [[model, str(number), *_cells(fold, metrics)] for number, fold in zip(numbers, one.folds, strict=True)]
        if len(one.folds) > 1:
            lines += [[model, "all", *_cells(one.overall, metrics)], [model, "sd", *_cells(one.sd, metrics)]]
    text = _aligned(f"protocol {protocol.name}, panel {panel}", lines)
    return text if not protocol.figures else f"{text}\n\n{figures_text(protocol.figures)}"


def figures_text(figures: Sequence[PublishedFigure]) -> str:
    """Return published figures as aligned text: a row per method and data set."""
    metrics = list(dict.fromkeys(metric for one in figures for metric in one.values))
    lines = [["method", "data", *metrics]]
    lines += [[one.method, one.data, *_cells(one.values, metrics)] for one in figures]
    return _aligned(SECONDARY, lines)


def protocol_csv(protocol: PublishedProtocol, scores: Scores, numbers: Numbers) -> str:
    """Return all scores as CSV, then the published figures; their rows have `published` in the column `fold`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["protocol", "model", "data", "fold", "metric", "value"])
    for model, one in scores.items():
        parts = [*zip(map(str, numbers), one.folds, strict=True), ("all", one.overall)]
        for fold, values in [*parts, ("sd", one.sd)]:
            for metric, value in values.items():
                writer.writerow([protocol.name, model, "", fold, metric, _exact(value)])
    for figure in protocol.figures:
        for metric, value in figure.values.items():
            writer.writerow([protocol.name, figure.method, figure.data, "published", metric, _exact(value)])
    return out.getvalue()


def genes_csv(scores: Scores, numbers: Numbers, *, genes: Sequence[str]) -> str:
    """Return each gene's PCC in each fold as CSV; empty where it does not exist."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["model", "gene", *(f"fold{number}" for number in numbers)])
    for model, one in scores.items():
        for gene, values in zip(genes, one.pcc.T.tolist(), strict=True):
            writer.writerow([model, gene, *(_exact(value) for value in values)])
    return out.getvalue()


def score_rows(label: ScoreLabel, scores: ProtocolScores, spots: Mapping[int, int]) -> list[ScoreRow]:
    """Return rows of the scores table: `fold 1` and so on, and `mean` over all folds.

    `spots` is the number of each fold -> its test spots.
    """
    parts = [(f"fold {number}", fold, spots[number]) for number, fold in zip(spots, scores.folds, strict=True)]
    rows = []
    for section, values, n in [*parts, (MEAN, scores.overall, sum(spots.values()))]:
        for name, value in values.items():
            metric, genes = metric_and_genes(name)
            rows.append(ScoreRow(label.protocol, label.panel, label.model, section, genes, metric, value, n=n))
    return rows


def figure_rows(protocol: PublishedProtocol, panel: str) -> list[ScoreRow]:
    """Return the published figures as rows for a report's table; they are in no table that a step stores."""
    rows = []
    for figure in protocol.figures:
        for name, value in figure.values.items():
            metric, genes = metric_and_genes(name)
            model = f"{figure.method}, published ({figure.data})"
            rows.append(ScoreRow(protocol.name, panel, model, MEAN, genes, metric, value))
    return rows


def metric_and_genes(name: str) -> tuple[str, str]:
    """Return the metric and the gene set of a score's name: `PCC HEG-50` is the PCC of HEG-50, `PCC-10` of `top-10`."""
    if name.startswith("PCC "):
        return "PCC", name.removeprefix("PCC ")
    if name.startswith("PCC-"):
        return "PCC", f"top-{name.removeprefix('PCC-')}"
    return name, "all"


def _cells(values: Mapping[str, float], metrics: Sequence[str]) -> list[str]:
    return [_short(values.get(metric, float(np.nan))) for metric in metrics]


def _short(value: float) -> str:
    return ABSENT if np.isnan(value) else f"{value:.4f}"


def _exact(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.9g}"


def _aligned(title: str, lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    body = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([title, body[0], "-" * max(len(line) for line in body), *body[1:]])
