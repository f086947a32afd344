"""Samples of a training, and pairs of image and expression: features in memory, or images that a function reads."""

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
    """Samples of a training, by number: pairs of image and expression, bags of tiles, or genes of a section."""

    def at(self, rows: Int64[np.ndarray, "sample"]) -> tuple[Tensor, ...]:
        """Return the arguments of the model's `forward`, on its device, each with one row per sample."""

    def __len__(self) -> int: ...


@runtime_checkable
class Prefetching(Protocol):
    """Samples that are slow to read or differ between epochs. `prefetch` is called at the start of each epoch."""

    def prefetch(self, parts: Sequence[Int64[np.ndarray, " _"]], epoch: int) -> None:
        """Begin to read these rows, in this order."""
        ...


@dataclass(frozen=True)
class PairDataset:
    """Pairs of image and measured expression, on the model's device."""

    images: Callable[[Int64[np.ndarray, "pair"]], Tensor]
    """Rows -> features, or pixels for a model with an image encoder."""
    expression: Float[Tensor, "spot gene"]

    @classmethod
    def of(cls, features: Float[Tensor, "spot image"], expression: Float[Tensor, "spot gene"]) -> "PairDataset":
        """Return pairs whose features are in memory; raises ModelError for nan or infinity."""
        check_finite(features, expression)
        return cls(lambda rows: _rows(features, rows), expression)

    def at(self, rows: Int64[np.ndarray, "pair"]) -> tuple[Float[Tensor, "pair ..."], Float[Tensor, "pair gene"]]:
        """Return the images and the expression of some rows, in the order of `rows`."""
        return self.images(rows), _rows(self.expression, rows)

    def __len__(self) -> int:
        return len(self.expression)


def check_finite(features: Float[Tensor, "spot image"], expression: Float[Tensor, "_ gene"]) -> None:
    """Raise ModelError for spots with nan or infinity."""
    for name, values in {"image features": features, "expression": expression}.items():
        bad = int((~torch.isfinite(values).all(dim=1)).sum())
        if bad:
            msg = f"the {name} of {bad} of {len(values)} spots hold nan or infinity: remove those spots"
            raise ModelError(msg)


def _rows(values: Tensor, rows: Int64[np.ndarray, "pair"]) -> Tensor:
    return values[torch.from_numpy(rows).to(values.device)]
