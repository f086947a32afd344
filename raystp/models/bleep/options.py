"""Options of BLEEP; its published training on spots is the default of `FitOptions`."""

from dataclasses import dataclass

from raystp.errors import ModelError
from raystp.models.contrastive.options import ContrastiveOptions
from raystp.models.training.options import FitOptions, check_at_least


@dataclass(frozen=True)
class BleepOptions(ContrastiveOptions):
    """Options that change BLEEP's result; the defaults are the published code's, except `feature_scaling`."""


@dataclass(frozen=True)
class BagBleepOptions(ContrastiveOptions):
    """Options of BLEEP on whole cases, whose image side is a bag of tiles."""

    embedding: int = 512
    """Length of a tile's embedding, which attention pools."""
    hidden: int = 128
    """Length of the hidden layer of the attention."""
    gate: bool = False
    """Whether the attention's hidden layer is gated, tanh(V e) * sigmoid(U e), as in ABMIL (Ilse et al. 2018)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, {"embedding": 1, "hidden": 1})
        if self.target == "input":
            msg = 'target="input" compares given features, and a bag has none of its own: set target="smoothed"'
            raise ModelError(msg + ' or "identity"')


BAG_FIT = FitOptions(epochs=100, lr=1e-3, weight_decay=1e-3, batch_size=32, accumulate_batches=1, select="best_pcc")
"""Default training on whole cases; a choice of ours. A batch of 32 bags of `BAG_TILES` tiles keeps about 1 GB.

On 80 simulated cases held-out PCC is .69 after 100 epochs at this rate, and .66 after 200 epochs at 1e-4; ridge on mean
features has .71.
"""

BAG_TILES = 2048
"""Tiles of a bag that are drawn in each epoch by default."""
