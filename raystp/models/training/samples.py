"""Samples of a training, and pairs of image and expression: features in memory, or images that a function reads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

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
    def of(
        cls, features: Float[Tensor, "spot image"], expression: Float[Tensor, "spot gene"], *, missing: bool = False
    ) -> "PairDataset":
        """Return pairs whose features are in memory; raises ModelError as `check_finite` does."""
        check_finite(features, expression, missing=missing)
        return cls(lambda rows: _rows(features, rows), expression)

    def at(self, rows: Int64[np.ndarray, "pair"]) -> tuple[Float[Tensor, "pair ..."], Float[Tensor, "pair gene"]]:
        """Return the images and the expression of some rows, in the order of `rows`."""
        return self.images(rows), _rows(self.expression, rows)

    def __len__(self) -> int:
        return len(self.expression)


def check_finite(
    features: Float[Tensor, "spot image"], expression: Float[Tensor, "_ gene"], *, missing: bool = False
) -> None:
    """Raise ModelError for spots with nan or infinity; with `missing`, nan in the expression is a missing gene."""
    wrong = {
        "image features": ~torch.isfinite(features).all(dim=1),
        "expression": (torch.isinf(expression) if missing else ~torch.isfinite(expression)).any(dim=1),
    }
    for name, spots in wrong.items():
        bad = int(spots.sum())
        if bad:
            msg = f"the {name} of {bad} of {len(spots)} spots hold nan or infinity: remove those spots"
            raise ModelError(msg)


def mean_squared_error(predicted: Float[Tensor, "sample gene"], target: Float[Tensor, "sample gene"]) -> Tensor:
    """Return the mean squared error over all values of a batch that are measured: a target of nan is missing."""
    missing = torch.isnan(target)
    # A GPU would have to finish all queued work before this branch.
    if target.device.type == "cpu" and not missing.any():
        return functional.mse_loss(predicted, target)
    errors = (predicted - torch.where(missing, predicted.detach(), target)) ** 2
    return errors.masked_fill(missing, 0).sum() / (~missing).sum().clamp(min=1)


def _rows(values: Tensor, rows: Int64[np.ndarray, "pair"]) -> Tensor:
    return values[to_device(rows, values.device)]


def to_device(values: np.ndarray, device: torch.device | str) -> Tensor:
    """Copy an array to a device; the host does not wait for a GPU's earlier work, as it does for unpinned memory."""
    host, target = torch.from_numpy(values), torch.device(device)
    return host.pin_memory().to(target, non_blocking=True) if target.type == "cuda" else host.to(target)
