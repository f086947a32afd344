"""Which patches of a file belong to which spots of a section: by barcode, never by position."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from raystp.errors import SlideError, some


@dataclass(frozen=True)
class PatchJoin:
    """The patches that have a spot, in the order of the file."""

    rows: Int64[np.ndarray, " patch"]
    """Their rows in the file."""
    spots: Int64[np.ndarray, " patch"]
    """Their rows in the section."""
    names: tuple[str, ...]
    lost_spots: tuple[str, ...]
    """Spots without a patch."""
    lost_patches: tuple[str, ...]
    """Barcodes that are no spot of the section."""

    def warnings(self) -> list[str]:
        """Return a sentence for the spots without a patch, and one for the patches without a spot."""
        total = len(self.names)
        sentences = []
        if self.lost_spots:
            spots = total + len(self.lost_spots)
            sentences.append(f"{len(self.lost_spots)} of {spots} spots have no patch: {some([*self.lost_spots])}")
        if self.lost_patches:
            patches = total + len(self.lost_patches)
            named = some([*self.lost_patches])
            sentences.append(f"{len(self.lost_patches)} of {patches} patches have no spot and are left out: {named}")
        return sentences


def join_spots(where: str, barcodes: Sequence[str] | None, spots: Sequence[str]) -> PatchJoin:
    """Return the patches of the section's spots; both have each name once.

    Raises:
        SlideError: the file has no barcodes, or none of them is a spot.
    """
    if barcodes is None:
        msg = f"{where} has no 'barcode', and without it no patch is known to be a spot's; make the file with barcodes"
        raise SlideError(msg)
    row_of = {name: row for row, name in enumerate(spots)}
    rows = [row for row, name in enumerate(barcodes) if name in row_of]
    if not rows:
        msg = (
            f"{where}: none of its {len(barcodes)} barcodes is one of the {len(spots)} spots of its section; patches "
            f"are {some([*barcodes], 2)}, spots are {some([*spots], 2)}; is it the file of this section?"
        )
        raise SlideError(msg)
    names = tuple(barcodes[row] for row in rows)
    known = set(names)
    return PatchJoin(
        np.array(rows, np.int64),
        np.array([row_of[name] for name in names], np.int64),
        names,
        tuple(name for name in spots if name not in known),
        tuple(name for name in barcodes if name not in row_of),
    )
