"""Where a measured section is on disk, and what all readers share: match counts with positions, resolve um/px."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from raystp.errors import SectionError, some
from raystp.storage import StoragePath
from raystp.units import is_plausible

MPP_TOLERANCE = 0.10
"""A given um/px and the one from the spots' pitch may differ by this share; beyond, one of them is wrong."""

Notes = dict[str, object]
"""What a reader dropped or assumed, as plain JSON values: `dropped_...`, `mpp_from`, ..."""


@dataclass(frozen=True)
class SectionSource:
    """The files of a measured section, and what the slide table states about it."""

    section: str
    slide: str
    patient: str
    layout: str
    """A key of `LAYOUTS`."""
    counts: StoragePath
    """The count matrix: a file, or for `space_ranger` also a folder."""
    positions: StoragePath | None = None
    """The spots' positions, where the layout keeps them in a file of their own."""
    mpp: float | None = None
    """um per pixel of the pixels that the positions are in; None: from the spots' pitch, where the layout has one."""
    spot_px: float | None = None
    """`legacy_st` without positions: pixels per array step, position = (array coordinate - 1) * spot_px."""

    @property
    def origin(self) -> str:
        """The section's name in messages."""
        return f"section '{self.section}' ({self.counts})"


@dataclass(frozen=True)
class BarcodeMatch:
    """Rows of the counts and rows of the positions that belong together, in the order of the counts."""

    counts: Int64[np.ndarray, "spot"]
    positions: Int64[np.ndarray, "spot"]
    notes: Notes


def match_barcodes(counts: list[str], positions: list[str], origin: str) -> BarcodeMatch:
    """Match counts with positions by the spots' names; spots on one side only are dropped and noted.

    Raises SectionError where a name occurs twice on one side, or where no name is on both.
    """
    for names, side in ((counts, "counts"), (positions, "positions")):
        if len(set(names)) < len(names):
            duplicates = [name for name, count in Counter(names).items() if count > 1]
            msg = f"{origin} lists {len(duplicates)} spots more than once in its {side}: {some(duplicates)}"
            raise SectionError(msg)
    row_of = {name: row for row, name in enumerate(positions)}
    both = [row for row, name in enumerate(counts) if name in row_of]
    if not both:
        msg = (
            f"{origin}: no spot has both counts and a position; counts have {some(counts, 3)}, positions have "
            f"{some(positions, 3)}: check that the two files belong to one section"
        )
        raise SectionError(msg)
    known = set(counts)
    notes: Notes = {}
    note_dropped(notes, "no_place", [name for name in counts if name not in row_of])
    note_dropped(notes, "no_counts", [name for name in positions if name not in known])
    rows = np.asarray(both, dtype=np.int64)
    return BarcodeMatch(rows, np.asarray([row_of[counts[row]] for row in both], dtype=np.int64), notes)


def note_dropped(notes: Notes, reason: str, names: list[str]) -> None:
    """Note how many spots were dropped for a reason, and the first five of them."""
    notes[f"dropped_{reason}"] = len(names)
    if names:
        notes[f"dropped_{reason}_first"] = names[:5]


def resolve_mpp(source: SectionSource, by_pitch: float | None, notes: Notes) -> float:
    """Return the um/px to use: the given one, else the one from the spots' pitch; note its source, and the pitch's.

    Raises SectionError where neither is known, where it is implausible, or where the two contradict each other.
    """
    given = source.mpp
    if by_pitch is not None:
        notes["mpp_by_pitch"] = by_pitch
    mpp = given if given is not None else by_pitch
    notes["mpp_from"] = "given" if given is not None else "pitch"
    if mpp is None:
        msg = f"{source.origin}: um/px is unknown: too few spots, or spots on one line, have no pitch; give mpp"
        raise SectionError(msg)
    if not is_plausible(mpp):
        msg = f"{source.origin} has an implausible {mpp} um/px ({notes['mpp_from']}): give mpp"
        raise SectionError(msg)
    if by_pitch is not None and abs(mpp / by_pitch - 1.0) > MPP_TOLERANCE:
        msg = (
            f"{source.origin}: mpp {mpp:.4g} was given, but the spots' pitch gives {by_pitch:.4g} um/px: positions "
            "must be in pixels of the full-resolution image, and mpp must be that image's"
        )
        raise SectionError(msg)
    return mpp
