"""How strict the checks of measured sections are, and how bins, cells and transcripts are pooled."""

from dataclasses import dataclass
from typing import Literal

MAX_LOST = 0.10
"""Default share of spots on one side of a join that may have no partner."""

SQUARE_COUNTS = 50
SQUARE_CELLS = 10
"""Defaults of the squares of Xenium that are kept."""


@dataclass(frozen=True)
class SectionOptions:
    """Choices of the step that hold for all sections; the slide table may have its own `bin_um` and `pool_um`."""

    min_counts: float | None = None
    """Fewest UMI of a spot; None: the larger of 10 and 5 % of the section's median; 0: keep every spot with a count."""
    max_lost: float = MAX_LOST
    """Largest share of counts without a position, or of positions in tissue without counts."""
    allow_mirrored: bool = False
    """Accept a mirrored Visium array: the image was flipped on purpose, and the positions with it."""
    bin_um: float | None = None
    """`visium_hd`: which bins are read; None: those of 8 um."""
    pool_um: float | None = None
    """Side of the squares; None: 112 um for `visium_hd` (or the multiple of the bin next to it), 100 for `xenium`."""
    xenium_from: Literal["transcripts", "cells"] = "transcripts"
    """`xenium`: count transcripts, or sum the counts of cells at their centroids."""
    square_counts: int = SQUARE_COUNTS
    """`xenium`: a square with so many counts is kept, ..."""
    square_cells: int = SQUARE_CELLS
    """... and one with so many cells."""
