"""How strict the checks of measured sections are."""

from dataclasses import dataclass

MAX_LOST = 0.10
"""Default share of spots on one side of a join that may have no partner."""


@dataclass(frozen=True)
class SectionOptions:
    """Choices of the step that hold for all sections."""

    min_counts: float | None = None
    """Fewest UMI of a spot; None: the larger of 10 and 5 % of the section's median; 0: keep every spot with a count."""
    max_lost: float = MAX_LOST
    """Largest share of counts without a position, or of positions in tissue without counts."""
    allow_mirrored: bool = False
    """Accept a mirrored Visium array: the image was flipped on purpose, and the positions with it."""
