"""train: spots (or cases) + embeddings (or tiles) -> a model.

A baseline is fitted in this process; any other method is trained on Ray Train.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter, create_or_open
from raystp.cluster.progress import Progress
from raystp.cluster.session import session
from raystp.cluster.tracking.outbox import Tracker, tracked
from raystp.cluster.tracking.runs import RunRef
from raystp.cluster.training.epoch_progress import describe, epochs_shown, show
from raystp.cluster.training.parallel import map_trainings
from raystp.cluster.training.workers import TrainResources, is_hosted, is_in_process, train
from raystp.errors import ConfigError, ModelError
from raystp.evaluate.metrics.genes import validation_pcc
from raystp.expression.training_set import SpotTable
from raystp.missing import column_means
from raystp.models.arrays import Arrays
from raystp.models.predict import predict_spots
from raystp.models.predictor import DirectPredictor
from raystp.models.store import MODEL_FILES, save_model
from raystp.models.training.score import ValidationScore
from raystp.steps.train.cases import plan as cases
from raystp.steps.train.cases.config import CasesTrainConfig
from raystp.steps.train.choice.candidates import CV
from raystp.steps.train.choice.folds import choice_inputs, choose_on_folds, folds_of
from raystp.steps.train.choice.record import chosen_sentence
from raystp.steps.train.config import TrainConfig
from raystp.steps.train.plan import Sources, TrainPlan
from raystp.steps.train.reference import open_model
from raystp.steps.train.spots import plan as spots
from raystp.steps.train.spots.config import EnsembleTrainConfig, SpotsTrainConfig
from raystp.steps.train.spots.members import with_member_values
from raystp.steps.train.work import TrainWork, run_tags
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

STEP = "train"
CONFIG = TrainConfig

KEPT = (
    "protocol",
    "train",
    "validation",
    "test",
    "patients",
    "panel",
    "d_image",
    "unseen",
    "bulk",
    "left_out",
    "completed",
    "cv",
)
"""What the manifest repeats of the model's record, where it has it."""


def run(config: TrainConfig) -> Artifact:
    """Train the model; write `model.safetensors`, `model.json` and the scores of each epoch."""
    if isinstance(config, EnsembleTrainConfig):
        config = with_member_values(config)
    if config.fit.select == CV:
        return _run_chosen(_on_spots(config))
    sources = open_sources(config)
    writer = create_or_open(config, STEP, inputs_of(config, sources))
    if isinstance(writer, Artifact):
        return writer
    return _run_plan(config, writer, _plan(config, sources))


def _run_chosen(config: SpotsTrainConfig) -> Artifact:
    """Choose on the folds of the training side, then train on all of it.

    The fingerprint covers the choice; the manifest describes the training that made the model, as any other.
    """
    sources, compared = open_sources(config), choice_inputs(config)
    writer = create_or_open(config, STEP, inputs_of(config, sources) | compared)
    if isinstance(writer, Artifact):
        return writer
    with _session(config):  # one for the folds and the training after them
        began = time.monotonic()
        chosen = choose_on_folds(folds_of(config, sources), lambda configs: train_all(config, configs))
        seconds = time.monotonic() - began
        for label, reason in chosen.record["failed"].items():
            logger.warning(f"  {label} is left out: {reason}")
        logger.info(f"  {chosen_sentence(chosen.record)}")
        final = open_sources(chosen.config)
        writer = writer.describing(chosen.config, inputs_of(chosen.config, final) | compared)
        plan = _plan(chosen.config, final)
        plan = replace(plan, meta=plan.meta | {"cv": chosen.record})
        return _run_plan(chosen.config, writer, plan, {"choice_seconds": seconds})


def _session(config: TrainConfig) -> AbstractContextManager[None]:
    """Return Ray's session; none for a training in this process."""
    return nullcontext() if is_in_process() and config.run.workers == 1 else session(config.run.address)


def train_all(config: TrainConfig, configs: Sequence[TrainConfig]) -> list[Artifact | str]:
    """Run trainings side by side; those that are finished are opened. In place of a model, return why there is none.

    Inside `inside_process` they run one after the other in this process, if each has one worker.
    """
    if is_in_process() and config.run.workers == 1:
        return [model_or_reason(one) for one in configs]
    found: list[Artifact | str] = [""] * len(configs)
    with Progress("folds", len(configs), "training") as progress:
        for position, model in map_trainings(
            model_or_reason, configs, _resources(config), concurrent=config.run.concurrent
        ):
            found[position] = model
            progress.add(1, failed=isinstance(model, str))
    return found


def model_or_reason(config: TrainConfig) -> Artifact | str:
    """Run a training without messages; return its model, or why these options and spots allow none."""
    level = logger.level
    logger.setLevel(logging.ERROR)  # messages about the whole training side are logged once, at the end
    try:
        return run(config)
    except (ModelError, ConfigError) as error:
        return str(error)
    finally:
        logger.setLevel(level)


def _run_plan(
    config: TrainConfig, writer: ArtifactWriter, plan: TrainPlan, statistics: dict[str, float] | None = None
) -> Artifact:
    """Train, and finish the artifact."""
    if config.method.is_trained:
        rows, score = _train(config, writer, plan)
    else:
        score = _fit(config, writer, plan)
        rows = []
    (writer.path / "epochs.parquet").write_table(tables.of_rows(rows, tables.EPOCHS))
    validation = validation_rows(rows or [{"epoch": 0, **score}])
    if validation:
        (writer.path / "validation.parquet").write_table(tables.of_rows(validation, tables.VALIDATION))
    (writer.path / "training").remove()
    notes = {key: plan.meta[key] for key in KEPT if key in plan.meta}
    if plan.warnings:
        notes["warnings"] = plan.warnings
    return writer.finish({**plan.counts, "epochs": len(rows)}, [], notes | {"score": score}, statistics)


def validation_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of the validation table: epoch, retrieval (0 is the model's own), PCC and errors."""
    found = []
    for row in rows:
        if row.get("validation_pcc") is None:
            continue
        compared = sorted(int(key.rpartition("/")[2]) for key in row if key.startswith("validation_pcc/"))
        for number in (0, *compared):
            end = f"/{number}" if number else ""
            values = {"pcc": row[f"validation_pcc{end}"], "mse": row.get(f"validation_mse{end}")}
            common = {"epoch": row["epoch"], "retrieval": number, "gene_mean_mse": row.get("gene_mean_mse")}
            found.append(common | values)
    return found


def open_sources(config: TrainConfig) -> Sources:
    """Open the artifacts that a training reads."""
    if isinstance(config, CasesTrainConfig):
        return cases.open_sources(config)
    return spots.open_sources(_on_spots(config))


def inputs_of(config: TrainConfig, sources: Sources) -> dict[str, Artifact | str]:
    """Return what a training's fingerprint covers beside its config."""
    own = cases.file_inputs(config) if isinstance(config, CasesTrainConfig) else spots.file_inputs(_on_spots(config))
    return sources.inputs() | own


def _plan(config: TrainConfig, sources: Sources) -> TrainPlan:
    if isinstance(config, CasesTrainConfig):
        return cases.plan_training(config, sources)
    return spots.plan_training(_on_spots(config), sources)


def _on_spots(config: TrainConfig) -> SpotsTrainConfig:
    if isinstance(config, SpotsTrainConfig):
        return config
    msg = f"targets: must be spots or cases, got {config.targets!r}"
    raise ConfigError(msg)


def _train(config: TrainConfig, writer: ArtifactWriter, plan: TrainPlan) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the rows of the epochs table, and the row of the chosen epoch."""
    tracker, run_ref = _tracking(config, writer, plan.cohort)
    run, resources = config.run, _resources(config)
    work = TrainWork(
        learner=plan.learner,
        fit=plan.fit or config.fit,
        split_batches=run.gather,
        checkpoint_every=run.checkpoint_every,
        target=writer.path,
        meta={key: value for key, value in plan.meta.items() if key != "left_out"},
        tracker=tracker,
        run_ref=run_ref,
        parameters=writer.config,
        inputs=writer.inputs,
        progress=None if is_hosted() else writer.path / "training" / "progress.json",
    )
    with _session(config), _shown(work.progress, config.fit.epochs) as progress:
        answer = train(work, resources, folder=writer.path / "training", name=writer.fingerprint)
        rows: list[dict[str, Any]] = answer["epochs"]
        chosen = next(row for row in rows if row["epoch"] == answer["chosen"])
        if progress is not None:
            progress.total = len(rows)  # fewer than planned, where the validation stopped it
            show(progress, len(rows), chosen)
            progress.note = f"epoch {chosen['epoch']} is kept: {describe(chosen)}"
    _warn(answer["damaged"])
    _warn(answer["untracked"])
    _warn(_above_gene_mean(chosen))
    return rows, chosen


def _above_gene_mean(row: dict[str, Any]) -> str:
    """Return a warning where the kept epoch's validation error is above that of the training means, or nothing."""
    error, mean = row.get("validation_mse"), row.get("gene_mean_mse")
    if error is None or mean is None or error <= mean:
        return ""
    return (
        f"epoch {row['epoch']} is kept, and its validation MSE {error:.4g} is above that of the training means "
        f"({mean:.4g}): its order of spots may be right, its levels are not; try other values of `fit`"
    )


def _resources(config: TrainConfig) -> TrainResources:
    run = config.run
    return TrainResources(run.workers, run.cpus_per_worker, 1.0 if run.use_gpu else 0.0)


def _shown(file: StoragePath | None, epochs: int) -> AbstractContextManager[Progress | None]:
    return nullcontext() if file is None else epochs_shown(file, epochs)


def _fit(config: TrainConfig, writer: ArtifactWriter, plan: TrainPlan) -> dict[str, float | None]:
    """Fit a baseline in this process; log its scalars and return its validation PCC."""
    assert plan.tables is not None  # a method that is fitted at once learns from spots
    learned, held = plan.tables
    began = time.monotonic()
    arrays = plan.made
    if arrays is None:
        arrays = config.method.fit(config.options, learned, seed=config.fit.seed)
    save_model(writer.path, config.model, arrays, plan.meta)
    score = None if held is None else _score(config, plan, arrays, learned=learned, held=held)
    pcc = None if score is None else score["validation_pcc"]
    seconds, score_text = time.monotonic() - began, "" if pcc is None else f"; validation PCC {pcc:.4g}"
    logger.info(f"train: fitted {config.model} in {seconds:.1f} s{score_text}")
    tracker, run_ref = _tracking(config, writer, plan.cohort)
    with tracked(tracker, run_ref, writer.config) as one:
        scalars = {name: float(value) for name, value in arrays.items() if np.ndim(value) == 0}
        one.set_tags(run_tags(writer.folder, plan.meta))
        one.log_inputs(writer.inputs, "training")
        one.log_metrics({**scalars, "validation_pcc": pcc}, step=0)
        for name in MODEL_FILES:
            one.log_file(f"{writer.folder}/{name}", "model")
    _warn(one.undelivered)
    return score or {"validation_pcc": None}


def _score(
    config: TrainConfig, plan: TrainPlan, arrays: Arrays, *, learned: SpotTable, held: SpotTable
) -> dict[str, float | None]:
    """Return the score of a fitted model on held-out spots, named as in the rows of epochs."""
    model = open_model(config.model, arrays, plan.meta)
    assert isinstance(model, DirectPredictor)  # as every method that is fitted at once
    predicted = predict_spots(model, held)
    pcc = validation_pcc(predicted, held.expression)
    found = ValidationScore.of(pcc, predicted, held.expression, column_means(learned.expression))
    return {"validation_pcc": pcc if np.isfinite(pcc) else None, **found.row()}


def _tracking(config: TrainConfig, writer: ArtifactWriter, cohort: str) -> tuple[Tracker, RunRef]:
    tracker = config.run.tracker(cohort)
    return tracker, tracker.run_ref(f"{writer.name}-{writer.fingerprint}", writer.folder)


def _warn(left: str) -> None:
    if left:
        logger.warning(f"  {left}")
