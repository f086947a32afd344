"""Parts of the report: paired differences between models, and scores over seeds."""

from collections.abc import Sequence

from raystp.evaluate.comparison.differences import ERROR, PairedDifference
from raystp.evaluate.comparison.seeds import SeedScore
from raystp.evaluate.comparison.text import ABSENT, difference_text, p_text, shown_pairs
from raystp.evaluate.metrics.cases import CASES
from raystp.evaluate.metrics.score import MEAN
from raystp.evaluate.report.parts import ReportTable


def comparison_parts(
    differences: Sequence[PairedDifference], notes: Sequence[str], seeds: Sequence[SeedScore]
) -> list[ReportTable]:
    """Return the tables that have rows: differences over all genes, and PCC over seeds."""
    parts = []
    if differences:
        rows = []
        for pair in shown_pairs(differences):
            rows.append([pair[0].model, pair[0].against])
            for metric in ("PCC", ERROR):
                one = next((row for row in pair if row.metric == metric), None)
                rows[-1] += [ABSENT, ABSENT] if one is None else [difference_text(one), p_text(one.p_holm)]
        columns = ["model", "minus", "PCC, all genes", "corrected p", f"{ERROR}, all genes", "corrected p"]
        parts.append(ReportTable("Paired differences", columns, rows, " ".join(notes)))
    shown = [one for one in seeds if one.metric == "PCC" and one.section in {MEAN, CASES}]
    if shown:
        cells = [[one.model, one.genes, f"{one.mean:.3f}", f"{one.sd:.3f}"] for one in shown]
        note = "The deviation is over trainings with other seeds; it says nothing about other patients."
        parts.append(ReportTable("PCC over seeds", ["models", "genes", "mean", "sd over seeds"], cells, note))
    return parts
