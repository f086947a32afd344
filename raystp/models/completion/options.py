"""Options of the completion methods. They import no torch, so a config is read fast."""

from dataclasses import dataclass

from raystp.errors import ModelError
from raystp.models.training.options import check_at_least


@dataclass(frozen=True)
class MedianOptions:
    """Options of the adaptive median."""

    hops: int = 4
    """Largest neighbourhood, in steps from spot to spot."""

    def __post_init__(self) -> None:
        check_at_least(self, {"hops": 1})


@dataclass(frozen=True)
class LinearOptions:
    """Options of the linear completion."""

    alpha: float = 300.0
    """The ridge penalty. With `draws`, chosen on two sections of HER2ST, each completing the other: MSE .199, against
    .237 with a penalty of 1,000 and 4 masks, and .218 at best with one mask."""
    neighbours: int = 6
    """Spots whose mean is an input; 0 for the spot alone."""
    draws: int = 16
    """Random masks per training section; each is a further set of rows to fit."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(self, {"alpha": 0, "neighbours": 0, "draws": 1})
        if self.alpha == 0:
            msg = "linear.alpha must be above 0: inputs of hidden entries are 0, so the problem is singular without it"
            raise ModelError(msg)


@dataclass(frozen=True)
class SpackleOptions:
    """Options of SpaCKLE; the published values, but for the number of steps."""

    neighbours: int = 18
    layers: int = 2
    heads: int = 1
    feedforward: int = 2048
    dropout: float = 0.1
    lr: float = 1e-3
    batch_size: int = 256
    steps: int = 500
    """Optimiser steps; the released code takes 1,000. The error on other sections can be lowest after 100: with
    `split.validation` the step of the lowest error is kept."""
    check_every: int = 20
    """Steps between two checks of the error on hidden entries of the validation sections."""
    seed: int = 42

    def __post_init__(self) -> None:
        counts = ("layers", "heads", "feedforward", "batch_size", "steps", "check_every")
        check_at_least(self, {"neighbours": 0, "dropout": 0, **dict.fromkeys(counts, 1)})
        if self.dropout >= 1 or self.lr <= 0:
            msg = f"options of spackle: dropout must be below 1 and lr above 0, got {self.dropout} and {self.lr}"
            raise ModelError(msg)
