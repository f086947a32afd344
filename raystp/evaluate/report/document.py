"""One evaluation as one HTML file: style and images are inside it, and it loads nothing.

It starts with what limits the scores: the protocol, its leak, the training and test data, and the comparison with the
baseline. That comparison is computed from the table below it. The page is in `templates/`; autoescape is on, so names
and messages from data files cannot add HTML.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from raystp.evaluate.comparison.differences import PairedDifference, primary
from raystp.evaluate.metrics.cases import CASES, FEWEST_CASES
from raystp.evaluate.metrics.gene_scores import GeneScores
from raystp.evaluate.metrics.score import MEAN, POOLED, ScoreRow
from raystp.evaluate.protocols import EvaluationProtocol
from raystp.evaluate.report.interactive import POLICY, bokeh_script, embedded, has_widgets
from raystp.evaluate.report.parts import ReportChart, ReportPart, ReportSection, ViewerPart
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
class TrackingLink:
    """Where MLflow has this evaluation."""

    experiment: str
    run: str
    """Name of the run."""
    page: str | None = None
    """Address of the run's page on a server; None for a database file, which `mlflow ui` shows."""


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
    differences: Sequence[PairedDifference] = ()
    """Paired differences between the models; the verdict is from them, `comparison` shows them."""
    genes: Sequence[str] = ()
    """The panel."""
    gene_scores: Sequence[GeneScores] = ()
    """Scores of each gene of the panel: of each section and as mean over sections, or over cases."""
    footnotes: Sequence[str] = ()
    """Explanations of the table's lines."""
    charts: Sequence[ReportPart] = ()
    """Below the scores."""
    viewer: ViewerPart | None = None
    """The interactive maps."""
    sections: Sequence[ReportSection] = ()
    comparison: Sequence[ReportPart] = ()
    """Paired differences between models."""
    calibration: Sequence[ReportPart] = ()
    """Whether the spread and `far` mean what they say."""
    curves: Sequence[ReportPart] = ()
    failures: Sequence[Mapping[str, str]] = ()
    """Rows of `tables.FAILURES`."""
    manifests: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Role (`model`, `spots`, ...) -> that artifact's manifest as plain JSON values."""
    tracking: TrackingLink | None = None
    """None without tracking."""


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
        "trusted": Markup,
        "with_interval": with_interval,
    }
    charts = [part for part in _parts(report) if isinstance(part, ReportChart)]
    keys = dict(zip(map(id, charts), embedded(charts), strict=True))
    environment.filters["embedded"] = lambda chart: keys[id(chart)]
    has_pooled = any(row.section == POOLED for row in report.rows)
    return environment.get_template("report.html.j2").render(
        report=report,
        policy=POLICY,
        bokeh=_bokeh(report, charts),
        over_cases=report.over == CASES,
        fewest_cases=FEWEST_CASES,
        verdicts=_verdicts(report),
        tables=score_tables(report.rows, report.over, extra=EXTRA_COLUMNS),
        pooled=score_tables(report.rows, POOLED, extra=EXTRA_COLUMNS) if has_pooled else [],
        manifests=[_provenance(role, manifest) for role, manifest in report.manifests.items()],
    )


def _parts(report: Report) -> list[ReportPart]:
    return [*report.charts, *report.comparison, *report.calibration, *report.curves]


def _bokeh(report: Report, charts: Sequence[ReportChart]) -> str:
    """Return Bokeh's script where a part needs it, once for the page."""
    if report.viewer is None and not charts:
        return ""
    return bokeh_script(widgets=report.viewer is not None or has_widgets([chart.model for chart in charts]))


def _verdicts(report: Report) -> list[str]:
    groups = by_panel(report.rows)
    found = []
    for rows in groups:
        own = [one for one in report.differences if (one.protocol, one.panel) == (rows[0].protocol, rows[0].panel)]
        difference = primary(own, report.model, report.against)
        sentence = verdict(rows, report.model, report.against, report.over, difference=difference)
        found.append((f"Panel {rows[0].panel}: " if len(groups) > 1 else "") + sentence)
    return found


def _provenance(role: str, manifest: Mapping[str, object]) -> tuple[str, str]:
    """Return the name of an artifact, and its manifest as JSON text."""
    name = f"{manifest.get('step', '?')}/{manifest.get('name', '?')}-{manifest.get('fingerprint', '?')}"
    return f"{role}: {name}", json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False)
