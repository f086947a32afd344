"""Pairs: spots and their tiles, row by row; features are in memory, or made when they are asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from raystp.errors import ModelError


@runtime_checkable
class SampleSet(Protocol):
    """What any model is trained on, by number: a pair of spot and tile, a bag of tiles, a gene of a slide."""

    def at(self, rows: Int64[np.ndarray, "sample"]) -> tuple[Tensor, ...]:
        """Return what the model's `forward` takes, on its device, each with a row per sample."""

    def __len__(self) -> int: ...


@runtime_checkable
class Prefetching(Protocol):
    """Samples that take time to read, or differ from epoch to epoch: they are told what an epoch will ask for."""

    def prefetch(self, parts: Sequence[Int64[np.ndarray, " _"]], epoch: int) -> None:
        """Begin to read these rows, in this order."""
        ...


@dataclass(frozen=True)
class PairDataset:
    """What a model is trained on. Both sides come on the model's device."""

    images: Callable[[Int64[np.ndarray, "pair"]], Tensor]
    """Rows -> features, or pixels for a model with a tower."""
    expression: Float[Tensor, "spot gene"]

    @classmethod
    def of(cls, features: Float[Tensor, "spot image"], expression: Float[Tensor, "spot gene"]) -> "PairDataset":
        """Return pairs whose features are in memory; raises ModelError for values that are not numbers."""
        for name, values in {"image features": features, "expression": expression}.items():
            bad = int((~torch.isfinite(values).all(dim=1)).sum())
            if bad:
                msg = f"the {name} of {bad} of {len(values)} spots hold nan or infinity: leave those spots out"
                raise ModelError(msg)
        return cls(lambda rows: _rows(features, rows), expression)

    def at(self, rows: Int64[np.ndarray, "pair"]) -> tuple[Float[Tensor, "pair ..."], Float[Tensor, "pair gene"]]:
        """Return the images and the expression of some rows, in the order of `rows`."""
        return self.images(rows), _rows(self.expression, rows)

    def __len__(self) -> int:
        return len(self.expression)


def _rows(values: Tensor, rows: Int64[np.ndarray, "pair"]) -> Tensor:
    return values[torch.from_numpy(rows).to(values.device)]
