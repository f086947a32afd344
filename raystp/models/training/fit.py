"""The training loop: the same function on one process, and on each of several that train together.

A model is a module whose `forward` takes what its samples' `at` returns, and gives tensors with one row per sample. A
loss is a function of all rows of a batch. Operations across workers are the functions of `RankLayout`.

All that changes in a training is one value, `TrainState`: a checkpoint holds it, and a resumed run equals an
uninterrupted one. The plan and the dropout depend on (seed, epoch, step, batch) only. Two results depend on the number
of workers: the dropout, if batches are split over ranks (`RankLayout.gather`), and the batch normalisation of an image
encoder, if it is not frozen.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from raystp.errors import ModelError
from raystp.models.training.options import FitOptions, Precision
from raystp.models.training.plan import (
    ONE_RANK,
    RankLayout,
    check_workers,
    epoch_plan,
    rank_rows,
    validation_batches,
)
from raystp.models.training.samples import Prefetching, SampleSet
from raystp.models.training.score import ValidationScore
from raystp.models.training.tower import with_tower

EpochRow = dict[str, int | float | None]
"""A row of the `epochs` table (epoch, losses, validation_pcc, seconds), and `ValidationScore.row`."""


@dataclass
class TrainState:
    """All that changes while a model is trained; a checkpoint holds it."""

    model: nn.Module
    """The module without DDP: its parameters' names are the checkpoint's."""
    loss: Callable[..., Tensor]
    """Takes what `model.forward` returns, with all rows of a batch, and returns a scalar."""
    optimizer: torch.optim.Optimizer
    loss_part: Callable[..., Tensor] | None = None
    """The loss of one rank, for a batch that is split over ranks: takes the `RankLayout` and this rank's rows of what
    `forward` returns; its mean over ranks is the loss. Without it every rank computes the whole loss."""
    learning_rate: Callable[[int, FitOptions], float] | None = None
    """Learning rate of an epoch, for a method with a schedule; depends on the epoch alone."""
    ddp: nn.Module | None = None
    """The same module inside DDP, if several ranks train."""
    epoch: int = 0
    """The epoch to run next."""
    best_epoch: int | None = None
    best_value: float | None = None
    """The lowest validation loss so far, or minus the highest PCC; the validation MSE where `best_is_poor`."""
    best_is_poor: bool = False
    """Whether the best epoch's validation MSE is above that of the training means, as all epochs' so far."""
    best: dict[str, Tensor] = field(default_factory=dict)
    """Weights of the best epoch, on the CPU; empty for `select="last"`."""

    @classmethod
    def start(
        cls,
        model: nn.Module,
        loss: Callable[..., Tensor],
        options: FitOptions,
        *,
        loss_part: Callable[..., Tensor] | None = None,
        optimizer: Callable[[list[nn.Parameter], FitOptions], torch.optim.Optimizer] | None = None,
        learning_rate: Callable[[int, FitOptions], float] | None = None,
    ) -> "TrainState":
        """Return the state before the first epoch, with AdamW or the method's own optimiser.

        The optimiser gets all parameters that require a gradient; those of an image encoder have rates of their own.
        """
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        made = with_tower(optimizer or _adamw, model)(trained, options)
        return cls(model, loss, made, loss_part, learning_rate)

    def weights(self) -> dict[str, Tensor]:
        """Return the selected weights: those of the best epoch if they were kept, else the current ones."""
        return dict(self.best) if self.best else _snapshot(self.model)

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device


def _adamw(parameters: list[nn.Parameter], options: FitOptions) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=options.lr, weight_decay=options.weight_decay)


def fit(
    state: TrainState,
    train: SampleSet,
    options: FitOptions,
    *,
    validation: SampleSet | None = None,
    ranks: RankLayout = ONE_RANK,
    score: Callable[[nn.Module], ValidationScore] | None = None,
) -> Iterator[EpochRow]:
    """Train from `state.epoch` on; yield one row of the `epochs` table after each epoch.

    `state` is changed in place. Whenever a row is yielded it can be saved; the result is `state.weights()`. `score`
    gives the row's `validation_pcc` and errors from the model in eval mode. An epoch whose error is above that of the
    training means is kept only while there is no other: then the one of the lowest error. Each rank computes the whole
    validation, and all ranks get the same values. Raises ModelError at once if the samples, the options and the workers
    do not fit each other, and later if the loss is nan or infinite.
    """
    check_workers(options.batch_size, options.accumulate_batches, ranks)
    _plan(len(train), options, epoch=0)
    missing = "section" if validation is None else "score" if options.select == "best_pcc" and score is None else None
    if missing and (options.select != "last" or options.patience is not None):
        msg = (
            f'select="{options.select}" and patience {options.patience} need a validation, and there is no '
            f'validation {missing}: name a validation section, or set select="last" and no patience'
        )
        raise ModelError(msg)
    if validation is not None:
        validation_batches(len(validation), batch_size=options.batch_size, seed=options.seed)
    return _epochs(state, train, options, validation=validation, ranks=ranks, score=score)


def _plan(rows: int, options: FitOptions, *, epoch: int) -> Int64[np.ndarray, "step batch sample"]:
    return epoch_plan(
        rows,
        batch_size=options.batch_size,
        accumulate_batches=options.accumulate_batches,
        seed=options.seed,
        epoch=epoch,
    )


def _epochs(
    state: TrainState,
    train: SampleSet,
    options: FitOptions,
    *,
    validation: SampleSet | None,
    ranks: RankLayout,
    score: Callable[[nn.Module], ValidationScore] | None,
) -> Iterator[EpochRow]:
    while state.epoch < options.epochs and not _is_stale(state, options):
        began, epoch = time.perf_counter(), state.epoch
        losses = [train_epoch(state, train, options, ranks)]
        if validation is not None:
            losses.append(validation_loss(state, validation, options))
        losses = ranks.mean(torch.tensor(losses, dtype=torch.float32, device=state.device)).tolist()
        if not all(math.isfinite(loss) for loss in losses):
            msg = (
                f"the loss of epoch {epoch} (training, validation) is {losses}: lower fit.lr (now {options.lr}), or "
                "check the features for nan"
            )
            raise ModelError(msg)
        found = score(state.model.eval()) if score is not None else ValidationScore(math.nan)
        pcc = _existing(found.pcc, options) if score is not None else None
        state.epoch += 1
        if validation is not None:
            value = -pcc if options.select == "best_pcc" and pcc is not None else losses[1]
            poor = found.is_above_gene_mean
            _keep_best(state, epoch, found.mse if poor else value, poor=poor, kept=options.select != "last")
        yield {
            "epoch": epoch,
            "train_loss": losses[0],
            "validation_loss": losses[1] if validation is not None else None,
            "validation_pcc": pcc,
            **found.row(),
            "seconds": time.perf_counter() - began,
        }


def train_epoch(state: TrainState, train: SampleSet, options: FitOptions, ranks: RankLayout = ONE_RANK) -> float:
    """Take the optimiser steps of epoch `state.epoch`; return the mean loss of this rank's batches."""
    plan = _plan(len(train), options, epoch=state.epoch)
    if isinstance(train, Prefetching):
        train.prefetch([rows for batches in plan for rows in rank_rows(batches, ranks).values()], state.epoch)
    if state.learning_rate is not None:
        for group in state.optimizer.param_groups:
            base = replace(options, lr=group.get("base_lr", options.lr))  # an encoder's layers have rates of their own
            group["lr"] = state.learning_rate(state.epoch, base)
    (state.ddp or state.model).train()
    total = torch.zeros((), device=state.device)
    with _restored_generators(state.device):
        for number, batches in enumerate(plan):
            state.optimizer.zero_grad(set_to_none=True)
            key = (options.seed, state.epoch, number)
            total += accumulate(state, train, batches, ranks, key=key, precision=options.precision)
            state.optimizer.step()
    return float(total) / len(plan)


def accumulate(
    state: TrainState,
    train: SampleSet,
    batches: Int64[np.ndarray, "batch sample"],
    ranks: RankLayout = ONE_RANK,
    *,
    key: tuple[int, ...] = (),
    precision: Precision = "float32",
) -> Float[Tensor, ""]:
    """Add the gradient of this rank's part of one step to the parameters; return its mean loss, without gradient.

    With `key`, dropout is drawn from (key, batch), and from the rank as well if a batch is split over ranks.
    """
    forward = state.ddp or state.model
    parts = rank_rows(batches, ranks)
    total = torch.zeros((), device=state.device)
    for number, rows in parts.items():
        if key:
            _seed(state.device, (*key, number, ranks.rank if ranks.gather is not None else 0))
        with ranks.no_sync() if number != max(parts) else contextlib.nullcontext():
            outputs = _outputs(forward, train.at(rows), state.device, precision)
            loss = _loss(state, outputs, ranks) / len(parts)
            torch.autograd.backward(loss)
        total += loss.detach()
    return total


def _outputs(
    forward: nn.Module, batch: tuple[Tensor, ...], device: torch.device, precision: Precision
) -> tuple[Tensor, ...]:
    """Return a model's outputs for a batch, in float32 at least, for the loss."""
    if precision == "float32":
        outputs: tuple[Tensor, ...] = forward(*batch)
        return outputs
    with torch.autocast(device.type, dtype=getattr(torch, precision)):
        outputs = forward(*batch)
    return tuple(one.float() if one.dtype == torch.bfloat16 else one for one in outputs)


def _loss(state: TrainState, outputs: tuple[Tensor, ...], ranks: RankLayout) -> Float[Tensor, ""]:
    """Return the loss of a whole batch, or of a batch that is split over ranks."""
    if ranks.gather is None:
        return state.loss(*outputs)
    if state.loss_part is not None:
        return state.loss_part(ranks, *outputs)
    return state.loss(*(ranks.gather(output) for output in outputs))


def validation_loss(state: TrainState, validation: SampleSet, options: FitOptions) -> float:
    """Return the mean loss over the validation batches, without dropout."""
    plan = validation_batches(len(validation), batch_size=options.batch_size, seed=options.seed)
    if isinstance(validation, Prefetching):
        validation.prefetch(list(plan), state.epoch)
    state.model.eval()
    with torch.inference_mode():
        batches = (validation.at(rows) for rows in plan)
        losses = [state.loss(*_outputs(state.model, one, state.device, options.precision)) for one in batches]
    return float(torch.stack(losses).mean())


def _existing(pcc: float, options: FitOptions) -> float | None:
    """Return a validation PCC; None where no gene has one. Raises ModelError where the epoch is chosen by it."""
    if math.isfinite(pcc):
        return pcc
    if options.select == "best_pcc":
        msg = (
            'select="best_pcc" needs a validation PCC, and none exists: no gene was measured at 2 or more spots of the '
            'validation; name a larger validation section, or set fit.select="last"'
        )
        raise ModelError(msg)
    return None


def _keep_best(state: TrainState, epoch: int, value: float, *, poor: bool, kept: bool) -> None:
    """Note an epoch that is the best so far; any epoch is better than one that is `poor`, see `TrainState`."""
    if state.best_value is None or (poor, value) < (state.best_is_poor, state.best_value):
        state.best_epoch, state.best_value, state.best_is_poor = epoch, value, poor
        state.best = _snapshot(state.model) if kept else {}


def _is_stale(state: TrainState, options: FitOptions) -> bool:
    if options.patience is None or state.best_epoch is None:
        return False
    return state.epoch - 1 - state.best_epoch >= options.patience


def _snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}


def _restored_generators(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Restore torch's global generators at the end: dropout draws from them, and the caller may use them too."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def _seed(device: torch.device, key: tuple[int, ...]) -> None:
    value = int(np.random.SeedSequence(key).generate_state(1)[0])
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(value)
