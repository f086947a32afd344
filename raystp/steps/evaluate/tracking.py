"""An evaluation in MLflow: its scores, what it has read, its files, and the link to its report."""

from contextlib import AbstractContextManager

from raystp.artifacts import ArtifactWriter
from raystp.cluster.tracking.outbox import tracked
from raystp.cluster.tracking.run_logger import RunLogger
from raystp.cluster.tracking.tags import REPORT_TAG, group_tags, without_fold
from raystp.evaluate.metrics.cases import CASES
from raystp.evaluate.metrics.score import MEAN
from raystp.evaluate.report.document import TrackingLink
from raystp.steps.evaluate.config import EvaluateConfig
from raystp.steps.evaluate.report import Evaluation


def evaluation_run(config: EvaluateConfig, writer: ArtifactWriter, cohort: str) -> AbstractContextManager[RunLogger]:
    """Open the run of an evaluation, or reopen it; at the end it is closed with the outcome."""
    tracker = config.run.tracker(cohort)
    run_ref = tracker.run_ref(f"{writer.name}-{writer.fingerprint}", writer.folder)
    return tracked(tracker, run_ref, writer.config)


def link_of(run: RunLogger) -> TrackingLink | None:
    """Return where MLflow has this run; None without tracking.

    A server's page is known once the server has answered; after a few seconds the report is written without it.
    """
    if not run.is_tracked:
        return None
    return TrackingLink(run.run_ref.experiment, run.run_ref.name, run.page())


def log_evaluation(run: RunLogger, writer: ArtifactWriter, evaluation: Evaluation) -> None:
    """Log each model's mean over sections (or its scores over cases), the inputs and the files.

    A metric has a model's name without its fold, so that MLflow compares the folds.
    """
    protocol, report = evaluation.report.protocol.name, writer.path / "report.html"
    run.set_tags({**group_tags(writer.name, protocol), REPORT_TAG: str(report)})
    run.describe(f"Report: `report.html` of this run, and {report}\n\n```\n{evaluation.text}\n```")
    run.log_inputs(writer.inputs, "evaluation")
    rows = [row for row in evaluation.rows if row.section in {MEAN, CASES}]
    values = {f"{row.metric} {row.genes}/{without_fold(row.model, writer.name)}": row.value for row in rows}
    run.log_metrics(values, step=0)
    for name in ("scores.txt", "scores.parquet", "report.html", *evaluation.files, *evaluation.tables):
        run.log_file(f"{writer.folder}/{name}")
