"""What the report says first: whether a model is better than its baseline, and the few numbers behind that.

All is computed from the tables below it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from raystp.evaluate.comparison.differences import PairedDifference
from raystp.evaluate.comparison.text import LIKELY, difference_text, p_text
from raystp.evaluate.metrics.score import MEAN, ScoreRow
from raystp.evaluate.report.score_tables import interval_text, with_interval


@dataclass(frozen=True)
class KeyNumber:
    """A score that is shown large, with what it is and what it is known within."""

    name: str
    value: str
    note: str = ""


def key_numbers(rows: Sequence[ScoreRow], model: str, against: str, section: str = MEAN) -> list[KeyNumber]:
    """Return the PCC over all genes of the model, of its baseline and of permuted labels, those of them that exist."""
    ours = _pcc(rows, model, section)
    theirs = _pcc(rows, against, section) if against != model else None
    found = [KeyNumber(f"{row.model}, PCC", f"{row.value:.3f}", interval_text(row)) for row in (ours, theirs) if row]
    if ours is not None and ours.null_mean is not None:
        sd = "" if ours.null_sd is None else f" ± {ours.null_sd:.3f}"
        found.append(KeyNumber("permuted labels, PCC", f"{ours.null_mean:.3f}", f"{sd} by chance".strip()))
    return found


def verdict(
    rows: Sequence[ScoreRow],
    model: str,
    against: str,
    section: str = MEAN,
    *,
    difference: PairedDifference | None = None,
) -> str:
    """Return `claim_and_reason` as one sentence."""
    return ": ".join(claim_and_reason(rows, model, against, section, difference=difference))


def claim_and_reason(
    rows: Sequence[ScoreRow],
    model: str,
    against: str,
    section: str = MEAN,
    *,
    difference: PairedDifference | None = None,
) -> tuple[str, str]:
    """Compare two models' PCC over all genes; `rows` are of one protocol and one panel.

    `section` selects the rows: the mean over sections, one section, or `cases`. With their paired `difference`, model
    minus baseline, its corrected p decides. Without a p, overlapping intervals cannot separate the two.
    """
    ours, theirs = _pcc(rows, model, section), _pcc(rows, against, section)
    if model == against:
        return f"{model} is the baseline itself", "there is no comparison in this run."
    if ours is None or theirs is None:
        missing = " and ".join(name for name, row in ((model, ours), (against, theirs)) if row is None)
        return f"No comparison of {model} with {against}", f"this run has no PCC of {missing}."
    over = "mean over sections" if section == MEAN else f"over {section}"
    values = f"PCC {with_interval(ours)} versus {with_interval(theirs)}, all genes, {over}"
    if difference is not None and difference.p_holm is not None:
        claim, certainty = _paired_claim(difference), _paired_certainty(difference, difference.p_holm)
    else:
        claim, certainty = _claim(ours, theirs), _certainty(ours, theirs)
    return claim, f"{values}; {certainty}{_against_null(ours)}."


def _pcc(rows: Sequence[ScoreRow], model: str, section: str) -> ScoreRow | None:
    """Return the PCC over all genes; None where there is none, or it is NaN."""
    wanted = (model, section, "all", "PCC")
    found = (row for row in rows if (row.model, row.section, row.genes, row.metric) == wanted)
    return next((row for row in found if not isnan(row.value)), None)


def _paired_claim(one: PairedDifference) -> str:
    likely = one.p_holm is not None and one.p_holm <= LIKELY
    if one.difference <= 0:
        return f"{one.model} is {'worse' if likely else 'not better'} than {one.against}"
    if likely:
        return f"{one.model} is better than {one.against}"
    return f"{one.model} scores higher than {one.against}, but not clearly"


def _paired_certainty(one: PairedDifference, p: float) -> str:
    what = "these sections alone" if "within section" in one.test else one.test.rsplit(" ", 1)[-1]
    return f"paired difference {difference_text(one)}, corrected p {p_text(p)} ({what})"


def _claim(ours: ScoreRow, theirs: ScoreRow) -> str:
    if ours.value <= theirs.value:
        return f"{ours.model} is not better than {theirs.model}"
    if _overlap(ours, theirs) is False:
        return f"{ours.model} is better than {theirs.model}"
    return f"{ours.model} scores higher than {theirs.model}, but not clearly"


def _certainty(ours: ScoreRow, theirs: ScoreRow) -> str:
    overlap = _overlap(ours, theirs)
    if overlap is None:
        return "there are too few data for an interval, so the difference may be chance"
    if overlap:
        return "the 95 % intervals overlap, so this run cannot separate the two"
    return "the 95 % intervals do not overlap"


def _overlap(ours: ScoreRow, theirs: ScoreRow) -> bool | None:
    if ours.low is None or ours.high is None or theirs.low is None or theirs.high is None:
        return None
    return ours.low <= theirs.high and theirs.low <= ours.high


def _against_null(row: ScoreRow) -> str:
    """Return a clause if the score is within two standard deviations of its permutation null."""
    if row.null_mean is None or row.null_sd is None:
        return ""
    limit = row.null_mean + 2 * row.null_sd
    if row.value > limit:
        return ""
    return f"; permuted labels reach {limit:.3f} by chance (mean + 2 sd), so {row.model} shows no signal here"
