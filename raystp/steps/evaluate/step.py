"""evaluate: predictions + measured spots (or labels of cases) -> a scores table and a report with figures."""

import logging
from dataclasses import asdict, replace

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter, create_or_open, resolve
from raystp.digests import content_id, digest
from raystp.evaluate.metrics.score import MEAN
from raystp.evaluate.report.document import build_report
from raystp.steps.evaluate.cases.config import CasesEvaluateConfig
from raystp.steps.evaluate.cases.score import evaluate_cases
from raystp.steps.evaluate.config import EvaluateConfig
from raystp.steps.evaluate.predictions import open_models
from raystp.steps.evaluate.published.score import evaluate_published
from raystp.steps.evaluate.report import Evaluation
from raystp.steps.evaluate.spots.config import SpotsEvaluateConfig
from raystp.steps.evaluate.spots.score import evaluate_spots
from raystp.steps.evaluate.tracking import evaluation_run, link_of, log_evaluation
from raystp.steps.failed_slides import TRIED
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

STEP = "evaluate"
CONFIG = EvaluateConfig


def run(config: EvaluateConfig) -> Artifact:
    """Score all predictions on the same spots or cases.

    Write `scores.parquet`, `scores.txt` and `report.html`; `genes` and `comparison`, as parquet and as CSV, with the
    score of each gene and the paired differences between models; and `seeds` for models that differ in their seed.
    """
    store = config.run.store
    predictions = [resolve(store, reference, "impute") for reference in config.predictions]
    inputs: dict[str, Artifact | str] = {f"prediction {number}": one for number, one in enumerate(predictions)}
    if config.planted is not None:
        inputs["planted"] = content_id(StoragePath.of(config.planted))
    inputs |= {f"set {name}": digest(StoragePath.of(file)) for name, file in config.sets.items()}
    if isinstance(config, CasesEvaluateConfig):
        writer = create_or_open(config, STEP, inputs | config.cases.digests(store))
        if isinstance(writer, Artifact):
            return writer
        return _finish(config, writer, evaluate_cases(config, open_models(predictions, store)))
    assert isinstance(config, SpotsEvaluateConfig)  # as `variant` returns no third class
    spots = resolve(store, config.spots, "spots")
    curve = [resolve(store, reference, "evaluate") for reference in config.curve]
    inputs |= {f"curve {number}": one for number, one in enumerate(curve)}
    writer = create_or_open(config, STEP, {"spots": spots, **inputs})
    if isinstance(writer, Artifact):
        return writer
    if config.protocol is not None:
        return _finish(config, writer, evaluate_published(config, spots, predictions))
    return _finish(config, writer, evaluate_spots(config, spots, open_models(predictions, store), curve))


def _finish(config: EvaluateConfig, writer: ArtifactWriter, evaluation: Evaluation) -> Artifact:
    """Write the files and the manifest, and log the run to MLflow."""
    with evaluation_run(config, writer, evaluation.cohort) as run:
        path, link = writer.path, link_of(run)
        _write_files(path, evaluation, build_report(replace(evaluation.report, tracking=link)))
        log_evaluation(run, writer, evaluation)
    if run.undelivered:
        logger.warning(f"  {run.undelivered}")
    failures = [f"failed at {row['stage']}: {row['slide']}: {row['reason']}" for row in evaluation.report.failures]
    summary = [evaluation.text, "", *evaluation.notes, *failures, f"report: {path / 'report.html'}"]
    counts = {"scores": len(evaluation.rows), "models": len(config.predictions)}
    notes: dict[str, object] = {"summary": "\n".join(summary)}
    if evaluation.warnings:
        notes["warnings"] = dict(evaluation.warnings)
    if evaluation.failures:
        scored = {row.section for row in evaluation.rows} - {MEAN}
        notes[TRIED] = sorted(scored | {str(row["slide"]) for row in evaluation.failures})
    return writer.finish(counts, evaluation.failures, notes)


def _write_files(path: StoragePath, evaluation: Evaluation, page: str) -> None:
    (path / "scores.parquet").write_table(tables.of_rows([asdict(row) for row in evaluation.rows], tables.SCORES))
    limits = [f"{section}: {one}." for section, warnings in evaluation.warnings.items() for one in warnings]
    files = {**evaluation.files, "scores.txt": "\n".join([evaluation.text, *limits, ""]), "report.html": page}
    for name, table in evaluation.tables.items():
        (path / name).write_table(table)
    for name, content in files.items():
        (path / name).write_bytes(content.encode())
