"""One evaluation as one HTML file that can be mailed, opened offline, and believed.

It opens with what limits the figures: the protocol, its leak, what was trained on what, and whether the model beats
ridge. The verdict is computed from the table below it, so the two cannot disagree.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raystp.evaluate.metrics.cases import CASES, FEWEST_CASES
from raystp.evaluate.metrics.score import MEAN, POOLED, Row
from raystp.evaluate.protocols import EvaluationProtocol
from raystp.evaluate.report.board import ScoreTable, boards, heading, interval_of, null_of, with_interval
from raystp.evaluate.report.page import PageFigure, cell, figure, fold, page, table, text
from raystp.evaluate.report.verdict import verdict

FEWEST_PERMUTATIONS = 20
MORE = (("RVD", "all"), ("spot-PCC", "all"), ("AUC", "all"))
EVERY = ("section", "model", "genes", "metric", "value", "null", "constant", "n")


@dataclass(frozen=True)
class SectionPictures:
    """What is shown of one test section."""

    section: str
    pictures: Sequence[PageFigure]
    note: str = ""


@dataclass(frozen=True)
class Report:
    """Everything the page says, as plain values."""

    title: str
    protocol: EvaluationProtocol
    model: str
    """The model that the verdict is about."""
    trained: Sequence[str]
    tested: Sequence[str]
    interval: str
    """What `intervals.interval_kind` says of the test sections or cases."""
    rows: Sequence[Row]
    """Rows of `tables.SCORES`."""
    over: str = MEAN
    """Which rows the headline is of: the mean over sections, or `cases`."""
    permutations: int = 0
    """How many permutations each null is a mean of."""
    against: str = "ridge"
    footnotes: Sequence[str] = ()
    """What a reader of the table must know of its lines."""
    charts: Sequence[PageFigure] = ()
    sections: Sequence[SectionPictures] = ()
    curves: Sequence[PageFigure] = ()
    failures: Sequence[Row] = ()
    """Rows of `tables.FAILURES`."""
    manifests: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Role (`model`, `spots`, ...) -> that artifact's manifest as plain JSON values."""


def build_report(content: Report) -> str:
    """Return the page: headline, scores, pictures per section, failures, training, provenance."""
    body = [
        *_headline(content),
        *_scores(content),
        *_sections(content),
        *_failures(content.failures),
        *_training(content.curves),
        *_provenance(content.manifests),
    ]
    return page(content.title, body)


def _headline(content: Report) -> list[str]:
    protocol = content.protocol
    groups = _groups(content.rows)
    said = [
        (f"Panel {panel}: " if len(groups) > 1 else "") + verdict(rows, content.model, content.against, content.over)
        for panel, rows in groups
    ]
    return [
        text("h1", content.title),
        text("p", f"Protocol “{protocol.name}”. {protocol.description}", "dim"),
        *(text("p", sentence, "verdict") for sentence in said),
        text("p", protocol.leak, "leak"),
        text("p", f"Trained on {_listed(content.trained)}. Tested on {_listed(content.tested)}."),
    ]


def _scores(content: Report) -> list[str]:
    parts = [text("h2", "Scores")]
    for board in boards(content.rows, content.over, more=MORE):
        parts += [text("h3", f"Protocol {board.protocol}, panel {board.panel}"), _board(board, content.model)]
    parts += [text("p", line, "dim") for line in (*_legend(content), *content.footnotes)]
    parts += [figure(picture) for picture in content.charts]
    pooled = any(row["section"] == POOLED for row in content.rows)
    for board in boards(content.rows, section=POOLED, more=MORE) if pooled else []:
        parts.append(fold(f"Pooled over all spots, panel {board.panel}", _board(board, content.model)))
    return [*parts, fold(f"Every row ({len(content.rows)})", _every(content.rows))]


def _board(board: ScoreTable, model: str) -> str:
    lines = [
        [cell(name), *(_score(board.cells.get((name, column))) for column in board.columns)] for name in board.models
    ]
    return table(["model", *map(heading, board.columns)], lines, [name == model for name in board.models])


def _score(row: Row | None) -> str:
    if row is None:
        return cell("n/a")
    null = null_of(row)
    constant = f"{row['constant']} without spread" if row["constant"] else ""
    return cell(f"{row['value']:.3f}", [interval_of(row), f"null {null}" if null else "", constant])


def _legend(content: Report) -> list[str]:
    lines = _legend_of_cases(content) if content.over == CASES else _legend_of_sections(content)
    if content.permutations:
        few = "; fewer than 20, so their spread is uncertain" if content.permutations < FEWEST_PERMUTATIONS else ""
        lines.append(f"Null: training labels permuted, mean ± sd over {content.permutations} permutations{few}.")
    return lines


def _legend_of_sections(content: Report) -> list[str]:
    return [
        "PCC per gene over spots, then the mean over the gene set, then over sections. HEG and HVG: highest mean and "
        "variance on the training side. A gene without spread has PCC 0 and is counted, over all sections "
        "(spot-PCC: spots).",
        f"In brackets: bootstrap 95 % interval, {content.interval}"
        + (
            ": square blocks of spots are resampled, so it says nothing about other sections or patients."
            if content.interval == "within section"
            else "; for a single section it is always within that section."
        ),
    ]


def _legend_of_cases(content: Report) -> list[str]:
    return [
        "One predicted and one measured value a gene and case. PCC per gene over cases, then the mean over the gene "
        "set; AUC: how often a case above the median of its gene is predicted above one that is not, chance .5. Both "
        f"need {FEWEST_CASES} cases. HEG and HVG: highest mean and variance on the training side. A gene without "
        "spread has PCC 0 and is counted.",
        f"In brackets: bootstrap 95 % interval, {content.interval}.",
    ]


def _every(rows: Sequence[Row]) -> str:
    lines = [[cell(_plain(row, name)) for name in EVERY] for row in rows]
    return table(EVERY, lines)


def _plain(row: Row, column: str) -> str:
    if column == "value":
        return with_interval(row)
    return null_of(row) if column == "null" else str(row[column])


def _sections(content: Report) -> list[str]:
    parts = [text("h2", "On the tissue")] if content.sections else []
    for shown in content.sections:
        parts += [
            text("h3", shown.section if content.over == CASES else f"Section {shown.section}"),
            *([text("p", shown.note, "dim")] if shown.note else []),
        ]
        parts += [figure(picture) for picture in shown.pictures]
    return parts


def _failures(failures: Sequence[Row]) -> list[str]:
    if not failures:
        return [text("h2", "Failures"), text("p", "None: every slide and section went through.")]
    columns = ("slide", "stage", "reason")
    lines = [[cell(str(row[name])) for name in columns] for row in failures]
    return [text("h2", f"Failures ({len(failures)})"), table(columns, lines)]


def _training(curves: Sequence[PageFigure]) -> list[str]:
    return [text("h2", "Training"), *map(figure, curves)] if curves else []


def _provenance(manifests: Mapping[str, Mapping[str, Any]]) -> list[str]:
    parts = [text("h2", "Provenance")] if manifests else []
    for role, manifest in manifests.items():
        name = f"{manifest.get('step', '?')}/{manifest.get('name', '?')}-{manifest.get('fingerprint', '?')}"
        whole = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False)
        parts.append(fold(f"{role}: {name}", text("pre", whole)))
    return parts


def _groups(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    kinds = dict.fromkeys((row["protocol"], row["panel"]) for row in rows)
    return [(kind[1], [row for row in rows if (row["protocol"], row["panel"]) == kind]) for kind in kinds]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "nothing"
