"""train: spots (or cases) + embeddings (or tiles) -> a model.

A baseline is fitted in this process; any other method is trained on Ray Train.
"""

import logging
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter, create_or_open
from raystp.cluster.progress import Progress
from raystp.cluster.session import session
from raystp.cluster.tracking.delivery import RunRef
from raystp.cluster.tracking.outbox import Tracker, tracked
from raystp.cluster.training.epoch_progress import describe, epochs_shown, show
from raystp.cluster.training.workers import TrainResources, in_trial, train
from raystp.errors import ConfigError
from raystp.evaluate.metrics.genes import validation_pcc
from raystp.models.predict import predict_spots
from raystp.models.predictor import DirectPredictor
from raystp.models.store import MODEL_FILES, save_model
from raystp.steps.train.cases import plan as cases
from raystp.steps.train.cases.config import CasesTrainConfig
from raystp.steps.train.config import TrainConfig
from raystp.steps.train.plan import Sources, TrainPlan
from raystp.steps.train.reference import open_model
from raystp.steps.train.spots import plan as spots
from raystp.steps.train.spots.config import EnsembleTrainConfig, SpotsTrainConfig
from raystp.steps.train.spots.members import with_member_values
from raystp.steps.train.work import TrainWork
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
)
"""What the manifest repeats of the model's record, where it has it."""


def run(config: TrainConfig) -> Artifact:
    """Train the model; write `model.safetensors`, `model.json` and a score per epoch."""
    if isinstance(config, EnsembleTrainConfig):
        config = with_member_values(config)
    sources = open_sources(config)
    writer = create_or_open(config, STEP, inputs_of(config, sources))
    if isinstance(writer, Artifact):
        return writer
    plan = _plan(config, sources)
    if config.method.is_trained:
        rows, score = _train(config, writer, plan)
    else:
        rows, score = [], _fit(config, writer, plan)
    (writer.path / "epochs.parquet").write_table(tables.of_rows(rows, tables.EPOCHS))
    (writer.path / "training").remove()
    notes = {key: plan.meta[key] for key in KEPT if key in plan.meta}
    if plan.warnings:
        notes["warnings"] = plan.warnings
    return writer.finish({**plan.counts, "epochs": len(rows)}, [], notes | {"score": score})


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
    run = config.run
    resources = TrainResources(run.workers, run.cpus_per_worker, 1.0 if run.use_gpu else 0.0)
    work = TrainWork(
        learner=plan.learner,
        fit=config.fit,
        split_batches=run.gather,
        checkpoint_every=run.checkpoint_every,
        target=writer.path,
        meta={key: value for key, value in plan.meta.items() if key != "left_out"},
        tracker=tracker,
        run_ref=run_ref,
        parameters=writer.config,
        progress=None if in_trial() else writer.path / "training" / "progress.json",
    )
    with session(run.address), _shown(work.progress, config.fit.epochs) as progress:
        answer = train(work, resources, folder=writer.path / "training", name=writer.fingerprint)
        rows: list[dict[str, Any]] = answer["epochs"]
        chosen = next(row for row in rows if row["epoch"] == answer["chosen"])
        if progress is not None:
            progress.total = len(rows)  # fewer than planned, where the validation stopped it
            show(progress, len(rows), chosen)
            progress.note = f"epoch {chosen['epoch']} is kept: {describe(chosen)}"
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
    pcc = None
    if held is not None:
        model = open_model(config.model, arrays, plan.meta)
        assert isinstance(model, DirectPredictor)  # as every method that is fitted at once
        score = validation_pcc(predict_spots(model, held), held.expression)
        pcc = score if np.isfinite(score) else None
    seconds, score_text = time.monotonic() - began, "" if pcc is None else f"; validation PCC {pcc:.4g}"
    logger.info(f"train: fitted {config.model} in {seconds:.1f} s{score_text}")
    tracker, run_ref = _tracking(config, writer, plan.cohort)
    with tracked(tracker, run_ref, writer.config) as one:
        scalars = {name: float(value) for name, value in arrays.items() if np.ndim(value) == 0}
        one.log_metrics({**scalars, "validation_pcc": pcc}, step=0)
        for name in MODEL_FILES:
            one.log_file(f"{writer.folder}/{name}", "model")
    _warn(one.undelivered)
    return {"validation_pcc": pcc}


def _tracking(config: TrainConfig, writer: ArtifactWriter, cohort: str) -> tuple[Tracker, RunRef]:
    tracker = config.run.tracker(cohort)
    return tracker, tracker.run_ref(f"{writer.name}-{writer.fingerprint}", writer.folder)


def _warn(left: str) -> None:
    if left:
        logger.warning(f"  {left}")
