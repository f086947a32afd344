"""Scores of a cross-validation: one value per fold, their mean and standard deviation.

The deviation is over folds (n - 1); training sides overlap, so it is no standard error of the mean.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from raystp.evaluate.metrics.genes import highest

Key = tuple[str, str, str]
"""Model, metric and gene set."""

DIGITS = 3


@dataclass(frozen=True)
class CrossValidatedScore:
    """One score in every fold; NaN where a fold does not have it."""

    model: str
    metric: str
    genes: str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the folds that have the score."""
        return float(np.mean(self._existing))

    @property
    def sd(self) -> float:
        """Standard deviation over the folds that have the score; NaN for one fold."""
        return float(np.std(self._existing, ddof=1)) if len(self._existing) > 1 else float(np.nan)

    @property
    def _existing(self) -> list[float]:
        return [value for value in self.values if not np.isnan(value)]


def fold_scores(folds: Sequence[Mapping[Key, float]]) -> list[CrossValidatedScore]:
    """Return each score of the folds, in order of first appearance."""
    keys = dict.fromkeys(key for fold in folds for key in fold)
    return [CrossValidatedScore(*key, tuple(fold.get(key, float(np.nan)) for fold in folds)) for key in keys]


def top_of_other_folds(
    pcc: Float[np.ndarray, "fold gene"], names: Sequence[str], n: int
) -> Float64[np.ndarray, " fold"]:
    """Return, per fold, the mean PCC of the `n` genes with the highest mean PCC in the OTHER folds.

    A gene that is in no other fold's panel (NaN) is not chosen. NaN for a fold in which none of the chosen has a PCC,
    and everywhere for a single fold.
    """
    out = np.full(len(pcc), np.nan)
    for fold in range(len(pcc)):
        others = np.delete(pcc, fold, axis=0)
        known = np.flatnonzero(~np.isnan(others).all(axis=0)) if len(others) else np.zeros(0, np.int64)
        if not len(known):
            continue
        means = np.nanmean(others[:, known], axis=0)
        chosen = known[highest(means, n, [names[gene] for gene in known.tolist()])]
        own = pcc[fold, chosen]
        if not np.isnan(own).all():
            out[fold] = np.nanmean(own)
    return out


def folds_csv(scores: Iterable[CrossValidatedScore], folds: int) -> str:
    """Return all scores as CSV: a row per model, metric and gene set; empty where a fold does not have the score."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["model", "metric", "genes", *(f"fold{number}" for number in range(1, folds + 1)), "mean", "sd"])
    for one in scores:
        cells = ["" if np.isnan(value) else f"{value:.6g}" for value in (*one.values, one.mean, one.sd)]
        writer.writerow([one.model, one.metric, one.genes, *cells])
    return out.getvalue()


def folds_text(scores: Sequence[CrossValidatedScore], folds: int) -> str:
    """Return the PCC of each gene set, and the MSE of all genes, as aligned text: a row per fold, then mean and sd."""
    columns = list(
        dict.fromkeys(
            (one.metric, one.genes)
            for one in scores
            if one.metric == "PCC" or (one.metric, one.genes) == ("MSE", "all")
        )
    )
    cells = {(one.model, (one.metric, one.genes)): one for one in scores}
    lines = [["model", "fold", *(f"{metric} {genes}" for metric, genes in columns)]]
    for model in dict.fromkeys(one.model for one in scores):
        found = [cells.get((model, column)) for column in columns]
        lines += [
            [model, str(fold + 1), *(_cell(None if one is None else one.values[fold]) for one in found)]
            for fold in range(folds)
        ]
        lines.append([model, "mean", *(_cell(None if one is None else one.mean) for one in found)])
        lines.append([model, "sd", *(_cell(None if one is None else one.sd) for one in found)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    body = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([f"{folds} folds of whole patients", body[0], "-" * len(body[0]), *body[1:]])


def _cell(value: float | None) -> str:
    return "n/a" if value is None or np.isnan(value) else f"{value:.{DIGITS}f}"
