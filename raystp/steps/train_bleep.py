"""BLEEP's training as one worker runs it: data, model, loop, checkpoints, metrics. On one process or on many."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Int64
from torch.nn.parallel import DistributedDataParallel

from raystp.cluster.delivery import Logbook
from raystp.cluster.tracking import NOWHERE, Run, Tracker, tracked
from raystp.cluster.train_workers import HISTORY, Worker, gather
from raystp.encoders.encoder import EncoderSpec
from raystp.encoders.registry import build
from raystp.evaluate.genes import pcc_per_gene
from raystp.impute.impute import impute
from raystp.impute.weights import mean
from raystp.index.exact import search
from raystp.models.bleep import Bleep, BleepOptions, seeded_bleep
from raystp.models.fit import FitOptions, Training, fit
from raystp.models.pairs import Pairs
from raystp.models.plan import Ranks
from raystp.models.store import MODEL_FILES, load_state, save_model, save_state
from raystp.steps.tile_pixels import TilePixelSource
from raystp.steps.training_set import Recipe, Stack, assemble
from raystp.storage import Place

Images = Callable[[Int64[np.ndarray, "pair"]], torch.Tensor]

NEIGHBOURS = 50
"""Neighbours in the validation's PCC, the published default; of a small bank a quarter, since all answer all alike."""


@dataclass(frozen=True)
class BleepWork:
    """All that a worker needs to know; it travels there, so it holds names and configs."""

    recipe: Recipe
    options: BleepOptions
    fit: FitOptions
    encoder: EncoderSpec | None
    """The tower that is trained along; None for cached features."""
    spread_sets: bool
    """Whether a contrast set is spread over the workers and gathered, or whole sets are dealt to them."""
    checkpoint_every: int
    target: Place
    meta: dict[str, Any]
    tracker: Tracker
    book: Logbook
    parameters: dict[str, Any]

    def __call__(self, worker: Worker) -> dict[str, Any]:
        """Train to the end; rank 0 writes the model.

        Returns the rows of the epochs table, the epoch that was chosen, and what did not reach MLflow.
        """
        stacks = assemble(self.recipe)
        model, pairs, validation = self._prepare(stacks, worker)
        training = Training.start(model, model.loss, self.fit)
        training.wrapped = worker.wrap(model) if worker.world > 1 else None
        rows = _resume(training, worker)
        scored = self.encoder is None and stacks[1] is not None
        loop = fit(
            training,
            pairs,
            self.fit,
            validation=validation,
            ranks=_ranks(training, worker, spread=self.spread_sets),
            score=_scorer(stacks[0], stacks[1], worker) if scored and stacks[1] is not None else None,
        )
        tracker = self.tracker if worker.rank == 0 else NOWHERE
        with tracked(tracker, self.book, self.parameters) as run:
            for row in rows:  # of before a restart: what stands already is left
                _log(run, row)
            for row in loop:
                rows.append(row)
                _log(run, row)
                self._report(training, worker, rows)
            chosen = training.best_epoch if self.fit.select != "last" else training.epoch - 1
            if worker.rank == 0:
                save_model(self.target, "bleep", training.weights(), self.meta | {"epoch": chosen})
                for name in MODEL_FILES:
                    run.file(f"{self.book.identity}/{name}", "model")
        return {"epochs": rows, "chosen": chosen, "untracked": run.left}

    def _report(self, training: Training, worker: Worker, rows: list[dict[str, Any]]) -> None:
        """Report an epoch, with a checkpoint now and then.

        A sweep goes by `epochs`, which the last one lacks: a trial at its end is not cut before its model is written.
        All epochs are told each time, so that a sweep's driver that was killed in between has missed none.
        """
        numbers = {key: value for key, value in rows[-1].items() if value is not None} | {HISTORY: json.dumps(rows)}
        numbers |= {"epochs": len(rows)} if len(rows) < self.fit.epochs else {}
        if len(rows) % self.checkpoint_every:
            worker.report(numbers, None)
            return
        with worker.scratch() as folder:
            if worker.rank == 0:
                save_state(Place.of(folder), training)
                (folder / "epochs.json").write_text(json.dumps(rows), encoding="utf-8")
            worker.report(numbers, folder)

    def _prepare(self, stacks: tuple[Stack, Stack | None], worker: Worker) -> tuple[Bleep, Pairs, Pairs | None]:
        """Return the model on its device, the training pairs, and the validation's, which are never augmented."""
        train, validation = stacks
        encoder = build(self.encoder) if self.encoder is not None else None
        tower = encoder.network if encoder is not None else None
        width = int(self.meta["d_image"])
        model = seeded_bleep(width, len(self.recipe.genes), self.options, seed=self.fit.seed, tower=tower)
        if tower is None:
            model.standardize(train.features)
        pairs: list[Pairs | None] = []
        for stack in (train, validation):
            if stack is None:
                pairs.append(None)
                continue
            expression = torch.from_numpy(stack.expression).to(worker.device)
            if encoder is None:
                pairs.append(Pairs.of(torch.from_numpy(stack.features).to(worker.device), expression))
            else:
                source = TilePixelSource(self.recipe.images, stack, encoder, worker.device)
                pairs.append(Pairs(source.augmented if stack is train else source.plain, expression))
        return model.to(worker.device), cast("Pairs", pairs[0]), pairs[1]


def retrieved_pcc(model: Bleep, bank: Stack, queries: Stack, device: torch.device) -> float:
    """Return the mean over genes of the PCC of queries imputed from a bank's spots, as the model would answer."""
    with torch.inference_mode():
        spots = model.embed_spots(torch.from_numpy(bank.expression).to(device)).cpu().numpy()
        images = model.embed_images(torch.from_numpy(queries.features).to(device)).cpu().numpy()
    scores, rows = search(spots, images, min(NEIGHBOURS, max(1, len(spots) // 4)), metric="cosine")
    predicted = impute(mean(scores), rows, bank.expression)
    return float(pcc_per_gene(predicted, queries.expression)[0].mean())


def _scorer(bank: Stack, queries: Stack, worker: Worker) -> Callable[[torch.nn.Module], float]:
    return lambda model: retrieved_pcc(cast("Bleep", model), bank, queries, worker.device)


def _ranks(training: Training, worker: Worker, *, spread: bool) -> Ranks:
    if worker.world == 1:
        return Ranks()
    wrapped = cast("DistributedDataParallel", training.wrapped)
    return Ranks(
        rank=worker.rank,
        world=worker.world,
        gather=gather if spread else None,
        mean=worker.mean,
        no_sync=wrapped.no_sync,
    )


def _log(run: Run, row: dict[str, Any]) -> None:
    run.metrics({key: value for key, value in row.items() if key != "epoch"}, step=row["epoch"])


def _resume(training: Training, worker: Worker) -> list[dict[str, Any]]:
    with worker.resume() as folder:
        if folder is None:
            return []
        load_state(Place.of(folder), training)
        rows: list[dict[str, Any]] = json.loads(Path(folder / "epochs.json").read_text(encoding="utf-8"))
        return rows
