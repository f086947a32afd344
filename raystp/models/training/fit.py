"""The training loop: the same function on one process, and on each of several that train together.

A model here is a module whose `forward`, given what its samples' `at` returns, gives tensors with one row per sample,
and a loss is a function of all rows of a set; whatever crosses between workers comes in as functions (`RankLayout`).
All that changes while training is one value, `TrainState`, so a checkpoint is that value and a resumed run equals an
undisturbed one: the plan and the dropout depend on (seed, epoch, step, set) only. Two things depend on the number of
workers, and only where sets are split over them (`RankLayout.gather`): the dropout drawn, and what a tower's batch
normalisation sees.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from raystp.errors import ModelError
from raystp.models.training.options import FitOptions, Precision
from raystp.models.training.plan import ALONE, RankLayout, check_workers, epoch_plan, share, validation_batches
from raystp.models.training.samples import Prefetching, SampleSet


@dataclass
class TrainState:
    """All that changes while a model is trained; what a checkpoint holds."""

    model: nn.Module
    """The bare module: its parameters' names are the checkpoint's."""
    loss: Callable[..., Tensor]
    """Takes what `model.forward` returns, each with all rows of a contrast set, and returns a scalar."""
    optimizer: torch.optim.Optimizer
    part: Callable[..., Tensor] | None = None
    """The same for one of several ranks, where a set is split over them: takes the `RankLayout` and this rank's rows
    of what `forward` returns; its mean over ranks is the loss. Without it every rank computes the whole loss."""
    rate: Callable[[int, FitOptions], float] | None = None
    """The learning rate of an epoch, where a method has a schedule; a function of the epoch alone."""
    wrapped: nn.Module | None = None
    """The same module inside DDP, where several ranks train."""
    epoch: int = 0
    """The epoch to run next."""
    best_epoch: int | None = None
    best_value: float | None = None
    """The lowest validation loss so far, or the highest PCC with its sign turned."""
    best: dict[str, Tensor] = field(default_factory=dict)
    """Weights of the best epoch, on the CPU; kept only for `select="best"`."""

    @classmethod
    def start(
        cls,
        model: nn.Module,
        loss: Callable[..., Tensor],
        options: FitOptions,
        *,
        part: Callable[..., Tensor] | None = None,
        optimizer: Callable[[list[nn.Parameter], FitOptions], torch.optim.Optimizer] | None = None,
        rate: Callable[[int, FitOptions], float] | None = None,
    ) -> "TrainState":
        """Return the state before the first epoch, with AdamW or the method's own optimiser.

        On all parameters that ask for a gradient.
        """
        wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
        made = (optimizer or _adamw)(wanted, options)
        return cls(model, loss, made, part, rate)

    def weights(self) -> dict[str, Tensor]:
        """Return the selected weights: the best epoch's where they were kept, else the last's."""
        return dict(self.best) if self.best else _snapshot(self.model)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device


def _adamw(parameters: list[nn.Parameter], options: FitOptions) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=options.lr, weight_decay=options.weight_decay)


def fit(
    training: TrainState,
    train: SampleSet,
    options: FitOptions,
    *,
    validation: SampleSet | None = None,
    ranks: RankLayout = ALONE,
    score: Callable[[nn.Module], float] | None = None,
) -> Iterator[dict[str, Any]]:
    """Train from `training.epoch` on; give after each epoch a row of the `epochs` table.

    `training` is changed in place, and when a row is given it is ready to be saved; `TrainState.weights` are the
    result. `score` turns the model (in eval mode) into the row's `validation_pcc`. Validation is taken whole on every
    rank, which all come to the same values. Raises ModelError at once where the pairs, the options and the workers do
    not fit, and later where the loss is no number.
    """
    check_workers(options.batch_size, options.accumulate_batches, ranks)
    epoch_plan(
        len(train),
        batch_size=options.batch_size,
        accumulate_batches=options.accumulate_batches,
        seed=options.seed,
        epoch=0,
    )
    lacking = "section" if validation is None else "score" if options.select == "best_pcc" and score is None else None
    if lacking and (options.select != "last" or options.patience is not None):
        msg = (
            f'select="{options.select}" and patience {options.patience} go by the validation, and there is no '
            f'validation {lacking}: name one, or train with select="last" and no patience'
        )
        raise ModelError(msg)
    if validation is not None:
        validation_batches(len(validation), batch_size=options.batch_size, seed=options.seed)
    return _epochs(training, train, options, validation=validation, ranks=ranks, score=score)


def _epochs(
    training: TrainState,
    train: SampleSet,
    options: FitOptions,
    *,
    validation: SampleSet | None,
    ranks: RankLayout,
    score: Callable[[nn.Module], float] | None,
) -> Iterator[dict[str, Any]]:
    while training.epoch < options.epochs and not _is_stale(training, options):
        began, epoch = time.perf_counter(), training.epoch
        losses = [train_epoch(training, train, options, ranks)]
        if validation is not None:
            losses.append(validation_loss(training, validation, options))
        losses = ranks.mean(torch.tensor(losses, dtype=torch.float32, device=training.device)).tolist()
        if not all(math.isfinite(loss) for loss in losses):
            msg = f"the loss of epoch {epoch} is {losses}: lower lr ({options.lr}), or look for nan in the features"
            raise ModelError(msg)
        pcc = score(training.model.eval()) if score is not None else None
        training.epoch += 1
        if validation is not None:
            value = -pcc if options.select == "best_pcc" and pcc is not None else losses[1]
            _keep_best(training, epoch, value, options)
        yield {
            "epoch": epoch,
            "train_loss": losses[0],
            "validation_loss": losses[1] if validation is not None else None,
            "validation_pcc": pcc,
            "seconds": time.perf_counter() - began,
        }


def train_epoch(training: TrainState, train: SampleSet, options: FitOptions, ranks: RankLayout = ALONE) -> float:
    """Take the optimiser steps of epoch `training.epoch`; return the mean loss of this rank's sets."""
    plan = epoch_plan(
        len(train),
        batch_size=options.batch_size,
        accumulate_batches=options.accumulate_batches,
        seed=options.seed,
        epoch=training.epoch,
    )
    if isinstance(train, Prefetching):
        train.prefetch([rows for sets in plan for rows in share(sets, ranks).values()], training.epoch)
    if training.rate is not None:
        for group in training.optimizer.param_groups:
            group["lr"] = training.rate(training.epoch, options)
    (training.wrapped or training.model).train()
    total = torch.zeros((), device=training.device)
    with _own_randomness(training.device):
        for number, sets in enumerate(plan):
            training.optimizer.zero_grad(set_to_none=True)
            key = (options.seed, training.epoch, number)
            total += accumulate(training, train, sets, ranks, key=key, precision=options.precision)
            training.optimizer.step()
    return float(total) / len(plan)


def accumulate(
    training: TrainState,
    train: SampleSet,
    sets: Int64[np.ndarray, "set pair"],
    ranks: RankLayout = ALONE,
    *,
    key: tuple[int, ...] = (),
    precision: Precision = "float32",
) -> Float[Tensor, ""]:
    """Add the gradient of this rank's part of one step to the parameters; return its mean loss, without gradient.

    With `key`, dropout is drawn from (key, set), and from the rank as well where a set is split over ranks.
    """
    forward = training.wrapped or training.model
    parts = share(sets, ranks)
    total = torch.zeros((), device=training.device)
    for number, rows in parts.items():
        if key:
            _seed(training.device, (*key, number, ranks.rank if ranks.gather is not None else 0))
        with ranks.no_sync() if number != max(parts) else contextlib.nullcontext():
            outputs = _outputs(forward, train.at(rows), training.device, precision)
            loss = _loss(training, outputs, ranks) / len(parts)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        total += loss.detach()
    return total


def _outputs(
    forward: nn.Module, batch: tuple[Tensor, ...], device: torch.device, precision: Precision
) -> tuple[Tensor, ...]:
    """Return what a model gives for a batch, for a loss that is taken in float32."""
    if precision == "float32":
        outputs: tuple[Tensor, ...] = forward(*batch)
        return outputs
    with torch.autocast(device.type, dtype=getattr(torch, precision)):
        outputs = forward(*batch)
    return tuple(one.float() if one.dtype == torch.bfloat16 else one for one in outputs)


def _loss(training: TrainState, outputs: tuple[Tensor, ...], ranks: RankLayout) -> Float[Tensor, ""]:
    """Return the loss of a set whose rows are all here, or of a set that is split over ranks."""
    if ranks.gather is None:
        return training.loss(*outputs)
    if training.part is not None:
        return training.part(ranks, *outputs)
    return training.loss(*(ranks.gather(output) for output in outputs))


def validation_loss(training: TrainState, validation: SampleSet, options: FitOptions) -> float:
    """Return the mean loss over the validation's contrast sets, without dropout."""
    sets = validation_batches(len(validation), batch_size=options.batch_size, seed=options.seed)
    if isinstance(validation, Prefetching):
        validation.prefetch(list(sets), training.epoch)
    training.model.eval()
    with torch.inference_mode():
        batches = (validation.at(rows) for rows in sets)
        losses = [training.loss(*_outputs(training.model, one, training.device, options.precision)) for one in batches]
    return float(torch.stack(losses).mean())


def _keep_best(training: TrainState, epoch: int, value: float, options: FitOptions) -> None:
    if training.best_value is None or value < training.best_value:
        training.best_epoch, training.best_value = epoch, value
        training.best = _snapshot(training.model) if options.select != "last" else {}


def _is_stale(training: TrainState, options: FitOptions) -> bool:
    if options.patience is None or training.best_epoch is None:
        return False
    return training.epoch - 1 - training.best_epoch >= options.patience


def _snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}


def _own_randomness(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Put torch's generators back afterwards: dropout reads the global ones, and they are not ours to move."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def _seed(device: torch.device, key: tuple[int, ...]) -> None:
    value = int(np.random.SeedSequence(key).generate_state(1)[0])
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(value)
