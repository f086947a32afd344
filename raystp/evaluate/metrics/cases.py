"""Scores over cases: one predicted and one measured value of each gene for each held-out case.

PCC over cases and AUC at the median are means over genes. Neither is given for fewer than three cases, for which both
are meaningless: two points always lie on a line. All cases of a patient are drawn together in the bootstrap.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from scipy.stats import rankdata

from raystp.evaluate.metrics.genes import GeneSets, check_pair, genes_to_show, highest, pcc_per_gene
from raystp.evaluate.metrics.intervals import DRAWS, draw_sections, interval
from raystp.evaluate.metrics.score import ScoreLabel, ScoreRow, null_summary
from raystp.evaluate.metrics.set_scores import SetScores
from raystp.evaluate.metrics.sums import METRICS, score, scores_of_draws, sums

CASES = "cases"
"""Value of the column `section` of the scores table for scores over cases."""

WELL = 0.4
WELL_PREDICTED = f"genes with PCC >= {WELL}"
"""Metric: a number of genes."""

TOP = 1000
TOP_PICKED = f"top-{TOP} (picked on test)"
"""Gene set that each model's own test score chooses."""

FEWEST_CASES = 3
"""With fewer there is no PCC and no AUC."""


@dataclass(frozen=True)
class CaseOutcome:
    """Predicted expression and label of some cases, in the same order."""

    cases: Sequence[str]
    patients: Sequence[str]
    predicted: Float[np.ndarray, "case gene"]
    measured: Float[np.ndarray, "case gene"]

    @property
    def has_correlation(self) -> bool:
        """Whether there are enough cases for PCC and AUC."""
        return len(self.cases) >= FEWEST_CASES


def auc_at_median(
    predicted: Float[np.ndarray, "case gene"], measured: Float[np.ndarray, "case gene"]
) -> Float64[np.ndarray, "gene"]:
    """Return, per gene, how often a case measured above the median is predicted higher than one that is not.

    The median is that of these cases; a case at the median does not count as above it. Equal predictions count half,
    so a constant prediction has 0.5. NaN for a gene of which no case is above the median. Raises as `check_pair` does.
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
    sets: GeneSets,
    *,
    rng: np.random.Generator,
    null: Float[np.ndarray, "permutation gene"] | None = None,
    draws: int = DRAWS,
) -> list[ScoreRow]:
    """Return one model's rows: PCC, AUC, MSE and MAE of each gene set over cases.

    `null` is the PCC of each gene for models trained on permuted labels. Intervals are over patients if there are three
    or more, else over cases if there are three or more; AUC has none. A set in which no gene has an AUC has no AUC row;
    its `constant` counts genes without one. With fewer than `FEWEST_CASES` only the errors are given. Raises as
    `check_pair` does.
    """
    scores, count = case_scores(outcome, sets, rng=rng, draws=draws), len(outcome.cases)
    auc = auc_at_median(outcome.predicted, outcome.measured)
    rows: list[ScoreRow] = []
    for set_column, (genes, columns) in enumerate(sets.items()):
        base = (label.protocol, label.panel, label.model, CASES, genes)
        for metric in ("PCC", "MSE", "MAE") if outcome.has_correlation else ("MSE", "MAE"):
            metric_column = METRICS.index(metric)
            drawn = scores.draws
            low, high = interval(drawn[:, metric_column, set_column]) if drawn is not None else (None, None)
            null_mean, null_sd = (None, None) if null is None or metric != "PCC" else null_summary(null, columns)
            value, constant = (float(one[metric_column, set_column]) for one in (scores.values, scores.constant))
            rows.append(ScoreRow(*base, metric, value, low, high, null_mean, null_sd, int(constant), n=count))
        existing = auc[columns][~np.isnan(auc[columns])]
        if outcome.has_correlation and len(existing):
            missing = len(columns) - len(existing)
            rows.append(ScoreRow(*base, "AUC", float(existing.mean()), constant=missing, n=count))
    return rows


def case_scores(outcome: CaseOutcome, sets: GeneSets, *, rng: np.random.Generator, draws: int = DRAWS) -> SetScores:
    """Return every metric over cases, and its draws over patients or cases; no PCC with fewer than `FEWEST_CASES`.

    Generators with the same seed draw the same patients for every model. Raises as `check_pair` does.
    """
    set_columns, count = list(sets.values()), len(outcome.cases)
    centre = outcome.measured.mean(axis=0, dtype=np.float64)
    parts = sums(outcome.predicted, outcome.measured, block=np.arange(count), centre=centre, sets=set_columns)
    point = score(parts, set_columns)
    if not outcome.has_correlation:
        point.values[:, METRICS.index("PCC")] = np.nan
    case_draws = draw_sections(list(outcome.patients), draws, rng)
    drawn = scores_of_draws(parts, case_draws, set_columns).values if case_draws is not None else None
    return SetScores(point.values[0], point.constant[0], drawn, count)


def picked_rows(label: ScoreLabel, outcome: CaseOutcome, names: Sequence[str]) -> list[ScoreRow]:
    """Return rows that describe the best genes of this test: no score of them applies to other cases.

    The number of genes with a PCC of at least `WELL`, and the mean PCC of the `TOP` genes of highest PCC here, for a
    panel that has more.
    """
    if not outcome.has_correlation:
        return []
    pcc = pcc_per_gene(outcome.predicted, outcome.measured)[0]
    base, n = (label.protocol, label.panel, label.model, CASES), len(outcome.cases)
    rows = [ScoreRow(*base, "all", WELL_PREDICTED, float((pcc >= WELL).sum()), n=n)]
    if len(pcc) > TOP:
        rows.append(ScoreRow(*base, TOP_PICKED, "PCC", float(pcc[highest(pcc, TOP, names)].mean()), n=n))
    return rows


def case_genes_to_show(outcome: CaseOutcome, names: Sequence[str], listed: Sequence[str]) -> list[tuple[int, str]]:
    """Return the genes to draw, each with the reason, as `genes_to_show` does.

    With too few cases for a PCC: the first gene of the panel and those that the config lists.
    """
    if outcome.has_correlation:
        return genes_to_show(pcc_per_gene(outcome.predicted, outcome.measured)[0], names, listed)
    chosen = {0: "first of the panel"}
    return list((chosen | {names.index(one): "listed in the config" for one in listed if one in names}).items())
