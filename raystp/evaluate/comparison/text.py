"""Paired differences as text: a table for the terminal, and sentences on how to read it."""

from collections.abc import Sequence

from raystp.evaluate.comparison.differences import ERROR, PairedDifference
from raystp.evaluate.comparison.p_values import smallest_p
from raystp.evaluate.metrics.intervals import FEWEST_UNITS
from raystp.evaluate.metrics.score import MEAN

LIKELY = 0.05
"""Above this corrected p, a difference is called chance."""

ABSENT = "n/a"


def comparison_text(rows: Sequence[PairedDifference]) -> str:
    """Return the differences in PCC and MSE over all genes as aligned text; nothing without rows."""
    shown = shown_pairs(rows)
    if not shown:
        return ""
    lines = [["model", "minus", "PCC all", "p", "MSE", "p"]]
    for pair in shown:
        lines.append([pair[0].model, pair[0].against])
        for metric in ("PCC", ERROR):
            one = next((row for row in pair if row.metric == metric), None)
            lines[-1] += [ABSENT, ABSENT] if one is None else [difference_text(one), p_text(one.p_holm)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    body = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    first = shown[0][0]
    over = "mean over sections" if first.section == MEAN else f"over {first.section}"
    title = f"protocol {first.protocol}, panel {first.panel}, paired differences, {over}, [bootstrap 95 % interval]"
    return "\n".join([title, body[0], "-" * len(body[0]), *body[1:]])


def shown_pairs(rows: Sequence[PairedDifference]) -> list[list[PairedDifference]]:
    """Return the differences over all genes, PCC then MSE, grouped by the two models."""
    pairs: dict[tuple[str, str], list[PairedDifference]] = {}
    for one in rows:
        if one.genes == "all":
            pairs.setdefault((one.model, one.against), []).append(one)
    return list(pairs.values())


def difference_text(one: PairedDifference) -> str:
    """Return a difference with its sign and its interval: `+0.031 [0.010, 0.052]`."""
    interval = "" if one.low is None or one.high is None else f" [{one.low:.3f}, {one.high:.3f}]"
    return f"{one.difference:+.3f}{interval}"


def p_text(p: float | None) -> str:
    """Return a p with three digits, and `<0.001` below them."""
    if p is None:
        return ABSENT
    return "<0.001" if p < 0.001 else f"{p:.3f}"  # noqa: PLR2004 -- the digits that are shown


def comparison_notes(rows: Sequence[PairedDifference], draws: int) -> list[str]:
    """Return what the intervals and p of these differences mean, in sentences."""
    shown = [one for one in rows if one.genes == "all" and one.metric == "PCC"] or list(rows)
    if not shown:
        return []
    first, count = shown[0], sum(one.p is not None and not one.control for one in shown)
    controls = sum(one.p is not None and one.control for one in shown)
    notes = ["Differences are paired: both models are scored on the same spots or cases and the same bootstrap draws."]
    if first.units < FEWEST_UNITS:
        notes.append(f"There is no p: {FEWEST_UNITS} units to resample are needed, and there are {first.units}.")
        return notes
    notes.append(
        f"p: two-sided, {first.test} ({first.units}), corrected by Holm's method for {_families(count, controls)} "
        "in each metric and gene set."
    )
    if "within section" in first.test:
        notes.append("Interval and p are about these sections, and not about other sections or patients.")
    floor = smallest_p(first.units)
    count = max(count, controls)
    limit = count * (floor if first.test.startswith("sign flips") else max(floor, 2 / (1 + draws)))
    if limit > LIKELY:
        remedy = "set a higher `draws`" if limit > count * floor else "compare fewer models, or test on more units"
        notes.append(
            f"With {first.units} units and {draws} draws the lowest corrected p is {min(1.0, limit):.3f}: {remedy}."
        )
    return notes


def _families(models: int, controls: int) -> str:
    """Return how many comparisons p is corrected for, in words."""
    parts = [(models, "of models"), (controls, "with controls")]
    return " and apart for ".join(f"{count} comparison{'' if count == 1 else 's'} {of}" for count, of in parts if count)
