"""Options of augmentation. Imports nothing heavy, so that reading a config does not either."""

from dataclasses import dataclass
from typing import Literal

Stain = Literal["none", "hed", "macenko"]


@dataclass(frozen=True)
class Augmentation:
    """How training tiles are changed at random, again in each epoch; validation tiles never are."""

    flips: bool = True
    """Whether a tile is mirrored at random, left to right and top to bottom."""
    rotations: bool = True
    """Whether a tile is rotated at random by a multiple of 90 degrees."""
    stain: Stain = "none"
    """Stains whose amounts are changed at random: `none`; haematoxylin, eosin and DAB with fixed colours (`hed`); or
    two stains whose colours are estimated from each tile (`macenko`)."""
    stain_strength: float = 0.05
    """The amount of each stain is multiplied by a random factor from 1 - s to 1 + s: .05 is light, .2 strong."""

    def __post_init__(self) -> None:
        if not 0 <= self.stain_strength < 1:
            msg = f"stain_strength must be from 0 to below 1, got {self.stain_strength}"
            raise ValueError(msg)

    @property
    def changes_tiles(self) -> bool:
        """Whether any tile can differ from what is read."""
        return self.flips or self.rotations or (self.stain != "none" and self.stain_strength > 0)
