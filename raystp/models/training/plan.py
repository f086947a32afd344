"""Which pairs are contrasted together, in which step, on which rank: the part of training that no width may change.

An epoch is a list of optimiser steps; a step is `step` contrast sets; a set is `contrast` pairs that are told apart
from each other. The published BLEEP trains with 4 sets of 128 (one per GPU), not with one set of 512, and users who
changed that report collapse (bowang-lab/BLEEP issues 7, 12, 14). So the geometry is fixed first and then shared out:
the mean over ranks of their gradients, as DDP takes it, is the gradient of the mean loss of the step's sets, on 1, 2 or
4 ranks.
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
    """One of the processes that train together, and how it reaches the others; alone by default."""

    rank: int = 0
    world: int = 1
    gather: Callable[[Tensor], Tensor] | None = None
    """Concatenates a tensor's rows over ranks, in rank order; its backward sums over ranks, then takes the own rows.
    Without it whole sets are dealt to ranks; with it each set is split over ranks and gathered for the loss."""
    mean: Callable[[Tensor], Tensor] = _itself
    """Averages a tensor over ranks, without gradient, so that all ranks report, select and stop alike."""
    no_sync: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    """Holds back DDP's exchange of gradients; entered for all sets of a step but the last."""


ALONE = RankLayout()


def epoch_plan(rows: int, *, contrast: int, step: int, seed: int, epoch: int) -> Int64[np.ndarray, "step set pair"]:
    """Return the rows of each contrast set of each optimiser step of an epoch.

    A permutation of all rows that depends on `seed` and `epoch` alone; what does not fill a step is left out this time.
    Raises ModelError where the rows do not fill one step.
    """
    if contrast < 1 or step < 1:
        msg = f"a set needs 1 sample and a step 1 set at least, got contrast {contrast} and step {step}"
        raise ModelError(msg)
    if rows < contrast * step:
        ways = [f"contrast {rows // step} with step {step}"] if rows >= 2 * step else []
        ways += [f"step {rows // contrast} with contrast {contrast}"] if rows >= contrast else []
        msg = (
            f"one step of {step} contrast sets of {contrast} pairs needs {step * contrast} training pairs, "
            f"there are {rows}: " + (f"{' or '.join(ways)} would do" if ways else "more measured spots would do")
        )
        raise ModelError(msg)
    steps = rows // (contrast * step)
    order = np.random.default_rng([seed, epoch]).permutation(rows).astype(np.int64)
    return order[: steps * step * contrast].reshape(steps, step, contrast)


def validation_sets(rows: int, *, contrast: int, seed: int) -> Int64[np.ndarray, "set pair"]:
    """Return the contrast sets of a validation loss: the same in every epoch and on every rank.

    Rows that do not fill a set are left out; with fewer rows than `contrast` there is one set of all rows, whose loss
    compares between epochs, but not with the training loss. Raises ModelError below 2 rows.
    """
    if rows < 2:  # noqa: PLR2004 -- a pair alone has nothing to be told apart from
        msg = f"a validation loss needs 2 pairs at least, there are {rows}: name a larger validation section, or none"
        raise ModelError(msg)
    size = min(rows, contrast)
    order = np.random.default_rng([seed]).permutation(rows).astype(np.int64)
    return order[: rows // size * size].reshape(-1, size)


def share(sets: Int64[np.ndarray, "set pair"], ranks: RankLayout) -> dict[int, Int64[np.ndarray, "part"]]:
    """Return the rank's part of one step: number of the set -> rows that this rank embeds, in order."""
    if ranks.gather is None:
        count = len(sets) // ranks.world
        return {number: sets[number] for number in range(ranks.rank * count, (ranks.rank + 1) * count)}
    count = sets.shape[1] // ranks.world
    return {number: rows[ranks.rank * count : (ranks.rank + 1) * count] for number, rows in enumerate(sets)}


def check_width(contrast: int, step: int, ranks: RankLayout) -> None:
    """Raise ModelError where the number of workers does not divide what is shared out among them."""
    shared, what = (step, "the contrast sets of a step") if ranks.gather is None else (contrast, "the pairs of a set")
    if shared % ranks.world:
        fit = [str(width) for width in range(1, shared + 1) if shared % width == 0]
        msg = f"{ranks.world} workers cannot share {what} evenly, {shared} in number: {', '.join(fit)} workers would do"
        raise ModelError(msg)
