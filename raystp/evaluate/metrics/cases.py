"""Scores over cases: one predicted and one measured value of each gene for each held-out case.

PCC over cases and AUC at the median are means over genes, and neither is given for fewer than three cases, where both
mean nothing: two points always lie on a line. Cases of a patient come and go together in the bootstrap.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from scipy.stats import rankdata

from raystp.evaluate.metrics.genes import check_pair
from raystp.evaluate.metrics.intervals import DRAWS, draw_sections, interval
from raystp.evaluate.metrics.score import Row, ScoreLabel, Sets
from raystp.evaluate.metrics.sums import METRICS, score, scores_of_draws, sums

CASES = "cases"
"""What stands in the scores table where a section's name stands otherwise."""

FEWEST_CASES = 3
"""With fewer, there is no PCC and no AUC."""


@dataclass(frozen=True)
class CaseOutcome:
    """What was predicted for some cases and what their label is, in the same order."""

    cases: Sequence[str]
    patients: Sequence[str]
    predicted: Float[np.ndarray, "case gene"]
    measured: Float[np.ndarray, "case gene"]


def auc_at_median(
    predicted: Float[np.ndarray, "case gene"], measured: Float[np.ndarray, "case gene"]
) -> Float64[np.ndarray, "gene"]:
    """Return, per gene, how often a case measured above the median is predicted above one that is not.

    The median is over these very cases; one at the median counts as not above it. Equal predictions count half, so
    that a constant prediction has .5. NaN for a gene of which no case is above the median. Raises as `check_pair` does.
    """
    check_pair(predicted, measured)
    above = measured > np.median(measured, axis=0)
    high, low = above.sum(axis=0), (~above).sum(axis=0)
    ranks = np.where(above, rankdata(predicted, axis=0), 0.0).sum(axis=0)
    pairs = np.where(high > 0, high * low, np.nan)
    return np.asarray((ranks - high * (high + 1) / 2) / pairs, dtype=np.float64)


def score_cases(
    label: ScoreLabel,
    outcome: CaseOutcome,
    sets: Sets,
    *,
    rng: np.random.Generator,
    null: Float[np.ndarray, "permutation gene"] | None = None,
    draws: int = DRAWS,
) -> list[Row]:
    """Return one model's rows in the columns of `tables.SCORES`: PCC, AUC, MSE and MAE of each gene set over cases.

    `null` is the PCC of each gene under models trained on permuted labels. Intervals, of three patients or more, are
    over patients, else of three cases or more over cases, and none is given to AUC. A set of which no gene has an AUC
    has no row of it; `constant` counts genes without. With fewer than `FEWEST_CASES` only the errors are given. Raises
    as `check_pair` does.
    """
    genes, count = list(sets.values()), len(outcome.cases)
    each = np.arange(count)
    centre = outcome.measured.mean(axis=0, dtype=np.float64)
    parts = sums(outcome.predicted, outcome.measured, block=each, centre=centre, sets=genes)
    point = score(parts, genes)
    counts = draw_sections(list(outcome.patients), draws, rng)
    drawn = scores_of_draws(parts, counts, genes).values if counts is not None else None
    auc = auc_at_median(outcome.predicted, outcome.measured)
    rows: list[Row] = []
    for of, name in enumerate(sets):
        base: Row = {"protocol": label.protocol, "panel": label.panel, "model": label.model, "section": CASES}
        base |= {"genes": name, "low": None, "high": None, "null_mean": None, "null_sd": None, "n": count}
        for metric in ("PCC", "MSE", "MAE") if count >= FEWEST_CASES else ("MSE", "MAE"):
            at = METRICS.index(metric)
            row = base | {"metric": metric, "value": float(point.values[0, at, of])}
            row |= {"constant": int(point.constant[0, at, of])}
            if drawn is not None:
                row["low"], row["high"] = interval(drawn[:, at, of])
            if null is not None and metric == "PCC":
                values = null[:, sets[name]].mean(axis=1)
                row["null_mean"] = float(values.mean())
                row["null_sd"] = float(values.std(ddof=1)) if len(values) > 1 else None
            rows.append(row)
        there = auc[sets[name]][~np.isnan(auc[sets[name]])]
        if count >= FEWEST_CASES and len(there):
            missing = len(sets[name]) - len(there)
            rows.append(base | {"metric": "AUC", "value": float(there.mean()), "constant": missing})
    return rows
