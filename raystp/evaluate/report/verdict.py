"""One sentence that says whether a model has earned its complexity, computed from the rows it is printed beside."""

from collections.abc import Sequence

from raystp.evaluate.metrics.score import MEAN, Row
from raystp.evaluate.report.board import with_interval


def verdict(rows: Sequence[Row], model: str, against: str = "ridge", section: str = MEAN) -> str:
    """Compare two models' PCC over all genes, mean over sections; `rows` are of one protocol and one panel.

    `section` names other rows than the mean's: a section's own, or those over cases.

    Overlapping intervals are said to leave the question open: both models are scored on the same spots, so the
    comparison errs on the cautious side.
    """
    ours, theirs = _pcc(rows, model, section), _pcc(rows, against, section)
    absent = [name for name, row in ((model, ours), (against, theirs)) if row is None]
    if ours is None or theirs is None or model == against:
        what = f"no PCC of {' and '.join(absent)} was taken" if absent else f"{model} is the baseline itself"
        return f"Whether {model} beats {against} is not known: {what} in this run."
    figures = f"PCC {with_interval(ours)} against {with_interval(theirs)}, all genes, {_over(section)}"
    return f"{_claim(ours, theirs)}: {figures}; {_certainty(ours, theirs)}{_beside_null(ours)}."


def _over(section: str) -> str:
    return "mean over sections" if section == MEAN else f"over {section}"


def _pcc(rows: Sequence[Row], model: str, section: str) -> Row | None:
    wanted = {"model": model, "section": section, "genes": "all", "metric": "PCC"}
    return next((row for row in rows if wanted.items() <= row.items()), None)


def _claim(ours: Row, theirs: Row) -> str:
    us, them = ours["model"], theirs["model"]
    if ours["value"] <= theirs["value"]:
        return f"{us} does not beat {them}"
    return f"{us} is above {them}, but not clearly" if _overlap(ours, theirs) is not False else f"{us} beats {them}"


def _certainty(ours: Row, theirs: Row) -> str:
    overlap = _overlap(ours, theirs)
    if overlap is None:
        return "there is too little for an interval, so how sure this is remains open"
    if overlap:
        return "the 95 % intervals overlap, so this run does not tell the two apart"
    return "the 95 % intervals do not overlap"


def _overlap(ours: Row, theirs: Row) -> bool | None:
    if ours["low"] is None or theirs["low"] is None:
        return None
    return bool(ours["low"] <= theirs["high"] and theirs["low"] <= ours["high"])


def _beside_null(row: Row) -> str:
    """Say so where a figure is no more than its own null reaches by chance (two standard deviations)."""
    if row["null_mean"] is None or row["null_sd"] is None:
        return ""
    reach = row["null_mean"] + 2 * row["null_sd"]
    if row["value"] > reach:
        return ""
    return f"; permuted labels alone reach {reach:.3f} by chance, so {row['model']} shows no signal here"
