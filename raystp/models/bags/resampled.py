"""Bags of tiles for a training: from a bag with more tiles than the limit, each epoch draws another sample."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int64

from raystp.models.training.bags import BagSamples


@dataclass
class ResampledBags:
    """Bags whose tiles are sampled anew in each epoch."""

    bags: BagSamples
    epoch: int = 0

    def __len__(self) -> int:
        return len(self.bags)

    def prefetch(self, parts: Sequence[Int64[np.ndarray, " _"]], epoch: int) -> None:  # noqa: ARG002 -- only the epoch matters
        """Set the epoch that the tiles are sampled for."""
        self.epoch = epoch

    def at(self, rows: Int64[np.ndarray, "sample"]) -> tuple[torch.Tensor, ...]:
        """Return some bags, as `BagSamples.at` does."""
        return replace(self.bags, epoch=lambda: self.epoch).at(rows)
