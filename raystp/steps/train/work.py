"""One worker's part of a training: model, loop, checkpoints and metrics; for any method and number of workers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from raystp.cluster.tracking.outbox import NO_TRACKING, Tracker, tracked
from raystp.cluster.tracking.run_logger import RunLogger
from raystp.cluster.tracking.runs import RunRef
from raystp.cluster.tracking.tags import group_tags
from raystp.cluster.training.epoch_progress import EpochWriter
from raystp.cluster.training.workers import HISTORY, Worker, gather
from raystp.errors import StorageError
from raystp.models.store import MODEL_FILES, checkpoint_damage, load_state, save_model, save_state
from raystp.models.training.fit import TrainState, fit
from raystp.models.training.options import FitOptions
from raystp.models.training.plan import RankLayout
from raystp.models.training.setup import TrainSetup, start
from raystp.steps.train.choice.record import chosen_sentence
from raystp.steps.train.plan import Learner
from raystp.storage import StoragePath

EPOCHS_FILE = "epochs.json"
"""File of a checkpoint with the rows of all epochs so far."""


@dataclass(frozen=True)
class TrainWork:
    """A training's work; it is sent to the workers, so it holds names and configs."""

    learner: Learner
    fit: FitOptions
    split_batches: bool
    """Whether each batch is split over the workers and gathered; else each worker gets whole batches."""
    checkpoint_every: int
    target: StoragePath
    meta: dict[str, Any]
    tracker: Tracker
    run_ref: RunRef
    parameters: dict[str, Any]
    inputs: dict[str, str]
    """What was read, as the manifest lists it."""
    progress: StoragePath | None = None
    """File for the progress, which the driver reads; None in a sweep."""

    def __call__(self, worker: Worker) -> dict[str, Any]:
        """Train all epochs; rank 0 writes the model.

        Returns the rows of the epochs table, the chosen epoch, and messages about damaged checkpoints and about what
        MLflow did not receive.
        """
        setup = self.learner.prepare(worker)
        state = start(setup, self.fit)
        state.ddp = worker.wrap(setup.model) if worker.world > 1 else None
        rows, damage = _resume(state, worker)
        ranks = _ranks(state, worker, split=self.split_batches)
        loop = fit(state, setup.train, self.fit, validation=setup.validation, ranks=ranks, score=setup.score)
        tracker = self.tracker if worker.rank == 0 else NO_TRACKING
        progress = EpochWriter(self.progress if worker.rank == 0 else None, resumed=len(rows))
        with tracked(tracker, self.run_ref, self.parameters) as run:
            for row in rows:  # from before a restart; those that were logged are skipped
                _log(run, row)
            for row in loop:
                rows.append(row)
                _log(run, row)
                progress.write(rows)
                self._report(state, worker, rows)
            run.set_tags(run_tags(self.run_ref.identity, self.meta))
            run.log_inputs(self.inputs, "training")
            chosen = state.best_epoch if self.fit.select != "last" else state.epoch - 1
            if worker.rank == 0:
                arrays: dict[str, torch.Tensor | np.ndarray] = {**state.weights(), **setup.extra}
                save_model(
                    self.target, self.learner.kind, arrays, self.meta | {"epoch": chosen} | _notes(setup, arrays)
                )
                for name in MODEL_FILES:
                    run.log_file(f"{self.run_ref.identity}/{name}", "model")
        return {"epochs": rows, "chosen": chosen, "damaged": damage, "untracked": run.undelivered}

    def _report(self, state: TrainState, worker: Worker, rows: list[dict[str, Any]]) -> None:
        """Report an epoch, with a checkpoint every `checkpoint_every` epochs.

        A sweep stops trials by `epochs`. The last report omits it, so that no trial is stopped before its model is
        written. Every report repeats all epochs, so that a restarted driver misses none.
        """
        numbers = {key: value for key, value in rows[-1].items() if value is not None} | {HISTORY: json.dumps(rows)}
        numbers |= {"epochs": len(rows)} if len(rows) < self.fit.epochs else {}
        if len(rows) % self.checkpoint_every:
            worker.report(numbers, None)
            return
        with worker.temporary_folder() as folder:
            if worker.rank == 0:
                save_state(StoragePath.of(folder), state)
                (folder / EPOCHS_FILE).write_text(json.dumps(rows), encoding="utf-8")
            worker.report(numbers, folder)


def _ranks(state: TrainState, worker: Worker, *, split: bool) -> RankLayout:
    if worker.world == 1:
        return RankLayout()
    wrapped = cast("DistributedDataParallel", state.ddp)
    return RankLayout(
        rank=worker.rank,
        world=worker.world,
        gather=gather if split else None,
        mean=worker.mean,
        no_sync=wrapped.no_sync,
    )


def _notes(setup: TrainSetup, arrays: Mapping[str, torch.Tensor | np.ndarray]) -> dict[str, Any]:
    """Return what the chosen weights add to the model's record."""
    if setup.notes is None:
        return {}
    return setup.notes(
        {name: np.asarray(value.cpu() if isinstance(value, torch.Tensor) else value) for name, value in arrays.items()}
    )


def run_tags(folder: str, meta: Mapping[str, Any]) -> dict[str, str]:
    """Return MLflow's tags of a training: protocol and fold, and how values were chosen on its training side.

    `folder` is the artifact's, `train/<name>-<fingerprint>`.
    """
    name = folder.partition("/")[2].rpartition("-")[0]
    chosen = {"raystp.chosen": chosen_sentence(meta["cv"])} if "cv" in meta else {}
    return group_tags(name, str(meta["protocol"])) | chosen


def _log(run: RunLogger, row: dict[str, Any]) -> None:
    run.log_metrics({key: value for key, value in row.items() if key != "epoch"}, step=row["epoch"])


def _resume(state: TrainState, worker: Worker) -> tuple[list[dict[str, Any]], str]:
    """Restore the last checkpoint that is whole; return the rows of its epochs, and a message about damaged ones."""
    damaged: list[str] = []

    def is_whole(folder: StoragePath) -> bool:
        damage = checkpoint_damage(folder) or _damaged_rows(folder)
        damaged.extend([damage.partition("; ")[0]] if damage else [])
        return not damage

    with worker.resume(is_whole) as folder:
        rows = [] if folder is None else _read_rows(folder)
        if folder is not None:
            load_state(folder, state)
    message = f"damaged checkpoints were not used ({'; '.join(damaged)}): {len(rows)} epochs were kept"
    return rows, message if damaged else ""


def _damaged_rows(folder: StoragePath) -> str:
    try:
        _read_rows(folder)
    except (StorageError, ValueError) as error:
        return f"{folder / EPOCHS_FILE} cannot be read ({error})"
    return ""


def _read_rows(folder: StoragePath) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((folder / EPOCHS_FILE).read_bytes())
    return rows
