"""Which rows of an encoder are taken: layers of its network, and views of each tile. It imports no torch."""

from dataclasses import dataclass
from typing import Literal

LAST, MIDDLE, STAGE = "last", "middle", "stage:"
LAYER_PATTERN = r"^(last|middle|stage:\d{1,3})$"

Views = Literal["none", "rotations", "flips"]
"""Views of a tile whose rows are averaged: the tile, its 4 rotations, or these and their 4 mirror images."""


@dataclass(frozen=True)
class FeatureOptions:
    """Which layers of an encoder are read, and over which views of a tile their rows are averaged."""

    layers: tuple[str, ...] = (LAST,)
    """`last` is the encoder's own row, `middle` the middle stage (the earlier one of two), `stage:<n>` the n-th from 0.
    Their rows are concatenated in this order."""
    views: Views = "none"

    @property
    def record(self) -> dict[str, object]:
        """Return what differs from an encoder's own row of the tile as it is."""
        layers = {} if self.layers == (LAST,) else {"layers": list(self.layers)}
        return layers | ({} if self.views == "none" else {"views": self.views})


OWN_ROW = FeatureOptions()
