"""Which samples form a batch, which batches form an optimiser step, and which rank computes which part of a step.

An epoch is a list of optimiser steps; a step is `accumulate_batches` batches; a batch is `batch_size` samples, which a
contrastive loss compares with each other. Published BLEEP trains with 4 batches of 128 (one per GPU), not with one of
512; users who changed that report collapse (bowang-lab/BLEEP issues 7, 12, 14). So the batches are fixed first and then
divided among the ranks. The mean of the ranks' gradients, which DDP takes, is the gradient of the mean loss of the
step's batches, on 1, 2 or 4 ranks.
"""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from torch import Tensor

from raystp.errors import ModelError


def _itself(values: Tensor) -> Tensor:
    return values


@dataclass(frozen=True)
class RankLayout:
    """This rank among the processes that train together, and its operations across ranks. The default is one rank."""

    rank: int = 0
    world: int = 1
    """Number of ranks."""
    gather: Callable[[Tensor], Tensor] | None = None
    """Concatenates a tensor's rows over ranks, in rank order; its backward sums over ranks, then takes the own rows.
    Without it each rank gets whole batches; with it each batch is split over the ranks and gathered for the loss."""
    mean: Callable[[Tensor], Tensor] = _itself
    """Averages a tensor over ranks, without gradient, so that all ranks report, select and stop alike."""
    no_sync: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    """Postpones DDP's exchange of gradients; entered for all batches of a step except the last."""


ONE_RANK = RankLayout()


def epoch_plan(
    rows: int, *, batch_size: int, accumulate_batches: int, seed: int, epoch: int
) -> Int64[np.ndarray, "step batch sample"]:
    """Return the rows of each batch of each optimiser step of an epoch.

    A permutation of all rows that depends on `seed` and `epoch` only; rows that do not fill a step are left out of this
    epoch. Raises ModelError if the rows do not fill one step.
    """
    size, count = batch_size, accumulate_batches
    if size < 1 or count < 1:
        msg = f"batch_size and accumulate_batches must be at least 1, got {size} and {count}"
        raise ModelError(msg)
    if rows < size * count:
        fits = [f"batch_size {rows // count} with accumulate_batches {count}"] if rows >= 2 * count else []
        fits += [f"accumulate_batches {rows // size} with batch_size {size}"] if rows >= size else []
        msg = f"one optimiser step of {count} batches of {size} needs {count * size} training samples, got {rows}; " + (
            f"set {' or '.join(fits)}" if fits else "add measured spots"
        )
        raise ModelError(msg)
    steps = rows // (size * count)
    order = np.random.default_rng([seed, epoch]).permutation(rows).astype(np.int64)
    return order[: steps * count * size].reshape(steps, count, size)


def validation_batches(rows: int, *, batch_size: int, seed: int) -> Int64[np.ndarray, "batch sample"]:
    """Return the batches of a validation loss: the same in every epoch and on every rank.

    Rows that do not fill a batch are left out. With fewer rows than `batch_size` there is one batch of all rows; its
    loss compares between epochs, but not with the training loss. Raises ModelError below 2 rows.
    """
    if rows < 2:  # noqa: PLR2004 -- a contrastive loss needs a second sample
        msg = f"a validation loss needs at least 2 samples, got {rows}: name a larger validation section, or none"
        raise ModelError(msg)
    size = min(rows, batch_size)
    order = np.random.default_rng([seed]).permutation(rows).astype(np.int64)
    return order[: rows // size * size].reshape(-1, size)


def rank_rows(batches: Int64[np.ndarray, "batch sample"], ranks: RankLayout) -> dict[int, Int64[np.ndarray, "part"]]:
    """Return this rank's part of one step: number of the batch -> rows that this rank computes, in order."""
    if ranks.gather is None:
        count = len(batches) // ranks.world
        return {number: batches[number] for number in range(ranks.rank * count, (ranks.rank + 1) * count)}
    count = batches.shape[1] // ranks.world
    return {number: rows[ranks.rank * count : (ranks.rank + 1) * count] for number, rows in enumerate(batches)}


def check_workers(batch_size: int, accumulate_batches: int, ranks: RankLayout) -> None:
    """Raise ModelError if the number of workers does not divide the batches of a step, or the samples of a batch."""
    whole = ranks.gather is None
    shared = accumulate_batches if whole else batch_size
    if shared % ranks.world:
        fit = ", ".join(str(workers) for workers in range(1, shared + 1) if shared % workers == 0)
        what = "batches of a step (fit.accumulate_batches)" if whole else "samples of a batch (fit.batch_size)"
        msg = f"{ranks.world} workers cannot share {shared} {what} evenly; set run.workers to one of {fit}"
        raise ModelError(msg)
