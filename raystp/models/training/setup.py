"""The inputs and the result of a method's `setup`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import nn

from raystp.missing import column_means, filled, has_missing
from raystp.models.arrays import Arrays, SpotArrays
from raystp.models.training.bags import BagSamples
from raystp.models.training.fit import TrainState
from raystp.models.training.options import FitOptions
from raystp.models.training.samples import PairDataset, SampleSet
from raystp.models.training.score import ValidationScore
from raystp.models.training.tile_samples import tile_numbers


@dataclass(frozen=True)
class TrainSetup:
    """A training, ready to start: a model on its device, and its samples."""

    model: nn.Module
    """Has a method `loss` that takes what its `forward` returns."""
    train: SampleSet
    validation: SampleSet | None = None
    score: Callable[[nn.Module], ValidationScore] | None = None
    """Return the validation score of the model, in eval mode."""
    bag_mean: Float[np.ndarray, " gene"] | None = None
    """With labels of bags: their training mean."""
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    """Arrays that are stored with the weights and are not weights."""
    notes: Callable[[Arrays], dict[str, Any]] | None = None
    """Return what the chosen weights add to the model's record, as plain JSON values."""


@dataclass(frozen=True)
class SpotInputs:
    """Measured spots to learn from, the same on every worker."""

    train: SpotArrays
    validation: SpotArrays | None
    d_image: int
    """Length of the image features."""
    meta: Mapping[str, Any]
    """Meta of the model to be trained: `genes` in the order of the expression's columns and, with gene texts, which of
    them are `seen` in training and which are `unseen`."""
    seed: int
    device: torch.device
    texts: Float32[np.ndarray, "gene text"] | None = None
    """Text embedding of each gene, for a method that needs them."""
    bags: Mapping[str, Any] = field(default_factory=dict)
    """`parts`, `labels` and `tiles` of `BagConfig`, for a method that learns from bags."""
    from_pixels: bool = False
    """Whether the samples' features are numbers of tiles (`tile_samples`). Those of `train`, which standardise, are
    then of the encoder before its training."""

    def training_mean(self) -> Float32[np.ndarray, "gene"]:
        """Return the mean of each gene over the training spots that measured it."""
        recorded = training_mean(self.meta)
        mean = column_means(self.train.expression) if recorded is None else recorded
        return np.asarray(np.nan_to_num(mean), np.float32)

    def with_filled_expression(self) -> "SpotInputs":
        """Return the inputs with each missing value replaced by its gene's training mean, for an expression encoder."""
        sides = [side for side in (self.train, self.validation) if side is not None]
        if not any(has_missing(side.expression) for side in sides):
            return self
        fill = self.training_mean()
        whole = [_with_expression(side, filled(side.expression, fill)) for side in sides]
        return replace(self, train=whole[0], validation=whole[1] if len(whole) > 1 else None)

    def pairs(self, spots: SpotArrays) -> PairDataset:
        """Return pairs of image and expression, on the device; a gene that a section has not measured is NaN."""
        return PairDataset.of(*self.tensors(spots))

    def tensors(self, spots: SpotArrays) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the samples' features and the expression, on the device."""
        features, expression = self.features(spots), spots.expression
        return torch.from_numpy(features).to(self.device), torch.from_numpy(expression).to(self.device)

    def features(self, spots: SpotArrays) -> Float32[np.ndarray, "spot feature"]:
        """Return the samples' features: of the tiles, or numbers of tiles in a training from pixels."""
        return tile_numbers(len(spots.group)) if self.from_pixels else spots.features


def training_mean(meta: Mapping[str, Any]) -> Float32[np.ndarray, "gene"] | None:
    """Return the training mean of each gene, from a model's record; None where it has none."""
    mean = meta.get("training_mean")
    return None if mean is None else np.asarray(mean, np.float32)


def _with_expression(spots: SpotArrays, expression: Float32[np.ndarray, "spot gene"]) -> SpotArrays:
    table: Any = spots  # a frozen dataclass, which the protocol does not say
    changed: SpotArrays = replace(table, expression=expression)
    return changed


@dataclass(frozen=True)
class BagInputs:
    """Bags of tiles with their labels to learn from, the same on every worker."""

    train: BagSamples
    validation: BagSamples | None
    features: Float32[np.ndarray, "tile feature"]
    """Training tiles whose mean and deviation standardise the features."""
    seed: int
    device: torch.device
    bag_tiles: int | None = None
    """Maximum number of tiles of a training bag in one epoch; None for all."""


def start(setup: TrainSetup, options: FitOptions) -> TrainState:
    """Return the state before the first epoch, with the method's own optimiser and schedule where it has them."""
    model: Any = setup.model  # the methods below are not those of nn.Module
    loss_part, optimizer = getattr(model, "loss_part", None), getattr(model, "optimizer", None)
    learning_rate = getattr(model, "learning_rate", None)
    return TrainState.start(
        model, model.loss, options, loss_part=loss_part, optimizer=optimizer, learning_rate=learning_rate
    )
