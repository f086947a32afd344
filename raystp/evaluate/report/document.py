"""One evaluation as one HTML file: style and images are inside it, and it loads nothing.

It starts with what limits the scores: the protocol, its leak, the training and test data, and the comparison with the
baseline. That comparison is computed from the table below it. The page is in `templates/`; autoescape is on, so names
and messages from data files cannot add HTML.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from raystp.evaluate.comparison.differences import PairedDifference, primary
from raystp.evaluate.metrics.cases import CASES, FEWEST_CASES
from raystp.evaluate.metrics.gene_scores import GeneScores
from raystp.evaluate.metrics.score import MEAN, POOLED, ScoreRow
from raystp.evaluate.protocols import EvaluationProtocol
from raystp.evaluate.report.gene_charts import gene_score_chart
from raystp.evaluate.report.interactive import POLICY, bokeh_script, embedded, with_widgets
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
from raystp.evaluate.report.verdict import KeyNumber, claim_and_reason, key_numbers

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
    """`intervals.interval_kind` of the test sections or cases; empty for a published protocol, which has its own means
    and no interval."""
    rows: Sequence[ScoreRow]
    against: str
    """The baseline that the model is compared with."""
    over: str = MEAN
    """The rows of the main table: the mean over sections, or `cases`."""
    permutations: int = 0
    """Permutations in each null."""
    headline: tuple[str, str] | None = None
    """A claim and its reason, in place of the comparison with the baseline."""
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
    gene_parts: Sequence[ReportPart] = ()
    """How genes vary together, or over cases; below the score of each gene."""
    comparison: Sequence[ReportPart] = ()
    """Paired differences between models."""
    calibration: Sequence[ReportPart] = ()
    """Whether the spread and `far` mean what they say."""
    curves: Sequence[ReportPart] = ()
    work: Sequence[ReportPart] = ()
    """What each step made, and how fast."""
    failures: Sequence[Mapping[str, str]] = ()
    """Rows of `tables.FAILURES`."""
    manifests: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Role (`model`, `spots`, ...) -> that artifact's manifest as plain JSON values."""
    tracking: TrackingLink | None = None
    """None without tracking."""


Part = tuple[str, str, Sequence[ReportPart]]
"""A part of the page: its anchor, its title and what is in it."""


def build_report(report: Report) -> str:
    """Return the page: verdict, maps, scores, genes, comparison, training, work, failures, provenance."""
    further, last = _further(report), _last(report)
    has_pooled = any(row.section == POOLED for row in report.rows)
    return render_page(
        "report.html.j2",
        [*report.charts, *(one for _, _, group in (*further, *last) for one in group)],
        widgets=report.viewer is not None,
        report=report,
        contents=_contents(report, further, last),
        over_cases=report.over == CASES,
        fewest_cases=FEWEST_CASES,
        verdicts=_verdicts(report),
        numbers=[one for rows in by_panel(report.rows)[:1] for one in _key_numbers(report, rows)],
        tables=score_tables(report.rows, report.over, extra=EXTRA_COLUMNS),
        pooled=score_tables(report.rows, POOLED, extra=EXTRA_COLUMNS) if has_pooled else [],
        further=further,
        last=last,
        manifests=[_provenance(role, manifest) for role, manifest in report.manifests.items()],
    )


def render_page(template: str, parts: Sequence[ReportPart], *, widgets: bool = False, **values: object) -> str:
    """Return a page with the charts of these parts, and Bokeh's script once if a part needs it.

    Autoescape is on, so names and messages from data files cannot add HTML. `widgets`: a part outside `parts` has some.
    """
    charts = [part for part in parts if isinstance(part, ReportChart)]
    keys = dict(zip(map(id, charts), embedded(charts), strict=True))
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "by_kind": lambda parts: [(kind, list(group)) for kind, group in groupby(parts, lambda part: part.kind)],
        "code": with_code,
        "embedded": lambda chart: keys[id(chart)],
        "heading": heading,
        "interval": interval_text,
        "null": null_text,
        "trusted": Markup,
        "with_interval": with_interval,
    }
    has_widgets = widgets or with_widgets([chart.model for chart in charts])
    bokeh = bokeh_script(widgets=has_widgets) if charts or widgets else ""
    return environment.get_template(template).render(policy=POLICY, bokeh=bokeh, **values)


def with_code(text: str) -> Markup:
    """Return a sentence with its names in backquotes as code."""
    marked = escape(text).split("`")
    return Markup("").join(Markup("<code>{}</code>").format(part) if at % 2 else part for at, part in enumerate(marked))


def _further(report: Report) -> list[Part]:
    parts: list[Part] = [
        ("genes", "Genes", [*_gene_scores(report), *report.gene_parts]),
        ("comparison", "Comparison of models", report.comparison),
        ("calibration", "Calibration", report.calibration),
    ]
    return [part for part in parts if part[2]]


def _last(report: Report) -> list[Part]:
    parts: list[Part] = [("training", "Training", report.curves), ("work", "Work", report.work)]
    return [part for part in parts if part[2]]


def _gene_scores(report: Report) -> list[ReportChart]:
    """Draw the score of each gene of the model and of its baseline, where any gene has one."""
    found = {one.model: one.pcc for one in report.gene_scores if one.section == report.over}
    if report.model not in found or not np.isfinite(found[report.model]).any():
        return []
    against = report.against if report.against in found else report.model
    return [gene_score_chart(report.genes, (report.model, found[report.model]), (against, found[against]), report.over)]


def _key_numbers(report: Report, rows: Sequence[ScoreRow]) -> list[KeyNumber]:
    return key_numbers(rows, report.model, report.against, report.over)


def _contents(report: Report, further: Sequence[Part], last: Sequence[Part]) -> list[tuple[str, str]]:
    """Return anchor and name of each part of the page, in order."""
    found = [("viewer", "Maps")] if report.viewer is not None else []
    found += [("scores", "Scores"), *((key, title.split()[0]) for key, title, _ in further)]
    found += [("tissue", "Tissue")] if report.sections else []
    found += [(key, title) for key, title, _ in last]
    return [*found, ("failures", "Failures"), *([("provenance", "Provenance")] if report.manifests else [])]


def _verdicts(report: Report) -> list[tuple[str, str]]:
    """Return the claim and its reason for each panel."""
    if report.headline is not None:
        return [report.headline]
    groups = by_panel(report.rows)
    found = []
    for rows in groups:
        own = [one for one in report.differences if (one.protocol, one.panel) == (rows[0].protocol, rows[0].panel)]
        difference = primary(own, report.model, report.against)
        claim, reason = claim_and_reason(rows, report.model, report.against, report.over, difference=difference)
        found.append((f"Panel {rows[0].panel}: {claim}" if len(groups) > 1 else claim, reason))
    return found


def _provenance(role: str, manifest: Mapping[str, object]) -> tuple[str, str]:
    """Return the name of an artifact, and its manifest as JSON text."""
    name = f"{manifest.get('step', '?')}/{manifest.get('name', '?')}-{manifest.get('fingerprint', '?')}"
    return f"{role}: {name}", json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False)
