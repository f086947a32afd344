"""One evaluation as one HTML file: style and images are inside it, and it loads nothing.

It starts with what limits the scores: the protocol, its leak, the training and test data, and the comparison with the
baseline. That comparison is computed from the table below it. The page is in `templates/`; autoescape is on, so names
and messages from data files cannot add HTML.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from raystp.evaluate.metrics.cases import CASES, FEWEST_CASES
from raystp.evaluate.metrics.score import MEAN, POOLED, ScoreRow
from raystp.evaluate.protocols import EvaluationProtocol
from raystp.evaluate.report.score_tables import (
    Column,
    by_panel,
    heading,
    interval_text,
    null_text,
    score_tables,
    with_interval,
)
from raystp.evaluate.report.verdict import verdict

TEMPLATES = Path(__file__).parent / "templates"
EXTRA_COLUMNS: Sequence[Column] = (("RVD", "all"), ("spot-PCC", "all"), ("AUC", "all"))


@dataclass(frozen=True)
class ReportFigure:
    """A PNG with its title, which is the alternative text, and a caption."""

    title: str
    png: bytes
    caption: str = ""

    @property
    def data_uri(self) -> str:
        """The PNG as a `data:` URI."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode('ascii')}"


@dataclass(frozen=True)
class ReportSection:
    """The figures of one test section or slide."""

    title: str
    figures: Sequence[ReportFigure]
    note: str = ""


@dataclass(frozen=True)
class Report:
    """The content of the page, as plain values."""

    title: str
    protocol: EvaluationProtocol
    model: str
    """The model that the report is about."""
    trained: Sequence[str]
    tested: Sequence[str]
    interval: str
    """`intervals.interval_kind` of the test sections or cases."""
    rows: Sequence[ScoreRow]
    against: str
    """The baseline that the model is compared with."""
    over: str = MEAN
    """The rows of the main table: the mean over sections, or `cases`."""
    permutations: int = 0
    """Permutations in each null."""
    footnotes: Sequence[str] = ()
    """Explanations of the table's lines."""
    charts: Sequence[ReportFigure] = ()
    sections: Sequence[ReportSection] = ()
    curves: Sequence[ReportFigure] = ()
    failures: Sequence[Mapping[str, str]] = ()
    """Rows of `tables.FAILURES`."""
    manifests: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Role (`model`, `spots`, ...) -> that artifact's manifest as plain JSON values."""


def build_report(report: Report) -> str:
    """Return the page: summary, scores, figures per section, failures, training curves, provenance."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "heading": heading,
        "interval": interval_text,
        "null": null_text,
        "with_interval": with_interval,
    }
    has_pooled = any(row.section == POOLED for row in report.rows)
    return environment.get_template("report.html.j2").render(
        report=report,
        over_cases=report.over == CASES,
        fewest_cases=FEWEST_CASES,
        verdicts=_verdicts(report),
        tables=score_tables(report.rows, report.over, extra=EXTRA_COLUMNS),
        pooled=score_tables(report.rows, POOLED, extra=EXTRA_COLUMNS) if has_pooled else [],
        manifests=[_provenance(role, manifest) for role, manifest in report.manifests.items()],
    )


def _verdicts(report: Report) -> list[str]:
    groups = by_panel(report.rows)
    return [
        (f"Panel {rows[0].panel}: " if len(groups) > 1 else "")
        + verdict(rows, report.model, report.against, report.over)
        for rows in groups
    ]


def _provenance(role: str, manifest: Mapping[str, object]) -> tuple[str, str]:
    """Return the name of an artifact, and its manifest as JSON text."""
    name = f"{manifest.get('step', '?')}/{manifest.get('name', '?')}-{manifest.get('fingerprint', '?')}"
    return f"{role}: {name}", json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False)
