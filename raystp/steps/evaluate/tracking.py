"""An evaluation in MLflow: its scores, what it has read, its files, and the link to its report."""

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np

from raystp.artifacts import ArtifactWriter
from raystp.cluster.tracking.outbox import tracked
from raystp.cluster.tracking.run_logger import RunLogger
from raystp.cluster.tracking.tags import REPORT_TAG, group_tags, without_fold
from raystp.evaluate.metrics.cases import CASES
from raystp.evaluate.metrics.score import MEAN, ScoreRow
from raystp.evaluate.report.document import TrackingLink
from raystp.steps.evaluate.config import EvaluateConfig
from raystp.steps.evaluate.report import Evaluation

_FOLD = re.compile(r"^fold (\d+)$")
"""Section of the rows of a fold, in the scores of a published protocol."""


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

    A metric has a model's name without its fold, so that MLflow compares the folds. The scores of all folds under a
    published protocol are curves `fold ...`, whose step is the fold's number.
    """
    protocol, report = evaluation.report.protocol.name, writer.path / "report.html"
    run.set_tags({**group_tags(writer.name, protocol), REPORT_TAG: str(report)})
    run.describe(f"Report: `report.html` of this run, and {report}\n\n```\n{evaluation.text}\n```")
    run.log_inputs(writer.inputs, "evaluation")
    for step, values in score_metrics(evaluation.rows, writer.name).items():
        run.log_metrics(values, step=step)
    for name in ("scores.txt", "scores.parquet", "report.html", *evaluation.files, *evaluation.tables):
        run.log_file(f"{writer.folder}/{name}")


def score_metrics(rows: Sequence[ScoreRow], name: str) -> dict[int, dict[str, float]]:
    """Return step -> metrics: 0 -> the means or the scores over cases; a fold's number -> its `fold ...` scores.

    `name` is the evaluation's. A score that does not exist is left out.
    """
    found: dict[int, dict[str, float]] = {0: {}}
    for row in rows:
        metric, fold = f"{row.metric} {row.genes}/{without_fold(row.model, name)}", _FOLD.match(row.section)
        if np.isnan(row.value):
            continue
        if row.section in {MEAN, CASES}:
            found[0][metric] = row.value
        elif fold is not None:
            found.setdefault(int(fold.group(1)), {})[f"fold {metric}"] = row.value
    return found
