"""Options of the training loop. Imports no torch, so that reading a config does not either."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

Precision = Literal["float32", "bfloat16"]

FeatureScaling = Literal["unit", "published"]
"""How a trained method scales frozen features: see `raystp.models.layers.scale_features`."""


@dataclass(frozen=True)
class FitOptions:
    """Length, batches and optimiser of a training; the defaults are BLEEP's (AdamW, 4 batches of 128)."""

    RENAMED: ClassVar[Mapping[str, str]] = {"contrast": "batch_size", "step": "accumulate_batches"}
    """Name of a field in earlier versions -> its name now."""

    epochs: int = 150
    lr: float = 1e-3
    weight_decay: float = 1e-3
    batch_size: int = 128
    """Samples per batch; a contrastive loss compares the samples of one batch with each other."""
    accumulate_batches: int = 4
    """Batches per optimiser step; their losses are averaged."""
    seed: int = 0
    select: Literal["last", "best", "best_pcc", "cv"] = "last"
    """Which epoch's weights are kept: `best` has the lowest validation loss, `best_pcc` the highest validation PCC; of
    equal epochs the earliest. A contrastive loss can rise for many epochs while retrieval still improves. Neither keeps
    an epoch whose validation MSE is above that of the training means, as long as any epoch's is not above it. `cv`
    holds out each training patient in turn to choose the epoch and the alternatives of `choose`, then trains on all."""
    patience: int | None = None
    """Stop after this many epochs in a row without a new best."""
    precision: Precision = "float32"
    """Arithmetic of the model. `bfloat16` computes under autocast; weights and loss stay float32."""
    encoder_lr: float | None = None
    """With `tiles`: learning rate of the last layer of the image encoder; by default `lr`. 0 leaves the encoder as it
    is. A method's schedule applies to it too."""
    layer_decay: float = 1.0
    """With `tiles`: each layer of the encoder has this share of the learning rate of the layer after it."""
    freeze_batch_norm: bool = True
    """With `tiles`: whether the encoder's batch normalisation keeps its statistics, which are those of its own
    training. `false` computes them from each batch, which needs large batches."""
    encoder_tiles: int | None = None
    """With `tiles`: tiles whose activations are in memory at a time; those of a larger batch are computed twice. By
    default all tiles of a batch."""

    def __post_init__(self) -> None:
        check_at_least(
            self, {"epochs": 1, "lr": 0, "weight_decay": 0, "batch_size": 1, "accumulate_batches": 1, "seed": 0}
        )
        if self.patience is not None:
            check_at_least(self, {"patience": 1})
        if self.encoder_lr is not None:
            check_at_least(self, {"encoder_lr": 0})
        if not 0 <= self.layer_decay <= 1:
            msg = f"layer_decay must be from 0 to 1, got {self.layer_decay}"
            raise ValueError(msg)
        if self.encoder_tiles is not None:
            check_at_least(self, {"encoder_tiles": 1})
            if not self.freeze_batch_norm:
                msg = (
                    f"encoder_tiles={self.encoder_tiles} divides a batch, and freeze_batch_norm=false needs whole "
                    "ones: remove one of them"
                )
                raise ValueError(msg)


ENCODER_FIELDS = ("encoder_lr", "layer_decay", "freeze_batch_norm", "encoder_tiles")
"""Options that only a training of an image encoder reads."""


def check_at_least(options: object, least: Mapping[str, int]) -> None:
    """Raise ValueError that lists every field that is below its least value or not finite."""
    values = {name: getattr(options, name) for name in least}
    wrong = [
        f"{name} must be finite and at least {least[name]}, got {value}"
        for name, value in values.items()
        if not least[name] <= value < math.inf
    ]
    if wrong:
        raise ValueError("; ".join(wrong))
