"""Scores of a cross-validation: one value per fold, their mean, standard deviation and 95 % interval.

The deviation is over folds (n - 1); training sides overlap, so it is no standard error of the mean. The interval is a
bootstrap over patients, sections or folds with the models as they are.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64

from raystp.evaluate.metrics.genes import highest
from raystp.evaluate.metrics.intervals import DRAWS, draw_sections, interval

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
    interval: tuple[float, float] | None = None
    """95 % interval of the mean; None where there are fewer than three patients, sections or folds."""

    @property
    def mean(self) -> float:
        """Mean over the folds that have the score; NaN where none has."""
        return float(np.mean(self._existing)) if self._existing else float(np.nan)

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


def mean_interval(
    values: Float[np.ndarray, " part"], folds: Int64[np.ndarray, " part"], units: Sequence[str], *, seed: int = 0
) -> tuple[float, float] | None:
    """Return the 95 % bootstrap interval of a mean over folds, each the mean of its parts (sections) that have a value.

    `units` are what is drawn: the patient of each part. Fewer than three are drawn as single parts; None for fewer than
    three parts. A part without a value is NaN.
    """
    known = np.flatnonzero(~np.isnan(values))
    drawn = draw_sections([units[part] for part in known.tolist()], DRAWS, np.random.default_rng(seed))
    if drawn is None:
        return None
    _, fold, counts = np.unique(folds[known], return_inverse=True, return_counts=True)
    weights = drawn / counts[fold]
    return interval(weights @ values[known] / weights.sum(axis=1))


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


def folds_csv(scores: Iterable[CrossValidatedScore], numbers: Sequence[int]) -> str:
    """Return all scores as CSV: a row per model, metric and gene set; empty where a fold does not have the score.

    `numbers` are those of the folds.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["model", "metric", "genes", *(f"fold{number}" for number in numbers), "mean", "sd", "low", "high"]
    writer.writerow(head)
    for one in scores:
        found = (*one.values, one.mean, one.sd, *(one.interval or (np.nan, np.nan)))
        writer.writerow(
            [one.model, one.metric, one.genes, *("" if np.isnan(value) else f"{value:.6g}" for value in found)]
        )
    return out.getvalue()


def folds_text(scores: Sequence[CrossValidatedScore], numbers: Sequence[int], title: str) -> str:
    """Return the PCC of each gene set, and the MSE of all genes, as aligned text.

    For each model there is a row per fold, then mean, standard deviation and interval.
    """
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
            [model, str(number), *(_cell(None if one is None else one.values[fold]) for one in found)]
            for fold, number in enumerate(numbers)
        ]
        lines.append([model, "mean", *(_cell(None if one is None else one.mean) for one in found)])
        lines.append([model, "sd", *(_cell(None if one is None else one.sd) for one in found)])
        lines.append([model, "95 %", *(_range(None if one is None else one.interval) for one in found)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    body = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([title, body[0], "-" * len(body[0]), *body[1:]])


def _cell(value: float | None) -> str:
    return "n/a" if value is None or np.isnan(value) else f"{value:.{DIGITS}f}"


def _range(found: tuple[float, float] | None) -> str:
    return "n/a" if found is None else f"{_cell(found[0])} to {_cell(found[1])}"
