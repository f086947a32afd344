"""What a reader is told about a section, and what every layout does alike: join counts with places, settle um/px."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from raystp.errors import SectionError, some
from raystp.storage import StoragePath
from raystp.units import is_plausible

AGREEMENT = 0.10
"""A um/px that was given and the one that the spots' pitch gives may differ by this share; beyond, one is wrong."""

Notes = dict[str, object]
"""What a reader did that its user may want to know, as plain JSON values: `dropped_...`, `mpp_from`, ..."""


@dataclass(frozen=True)
class SectionSource:
    """A measured section as it lies on disk."""

    section: str
    slide: str
    patient: str
    layout: str
    """A key of `LAYOUTS`."""
    counts: StoragePath
    """The count matrix: a file, or for `space_ranger` also a folder."""
    positions: StoragePath | None = None
    """The spots' places, where the layout keeps them apart."""
    mpp: float | None = None
    """um per pixel of the pixels that the positions are in; None: from the spots' pitch, where the layout has one."""
    spot_px: float | None = None
    """`legacy_st` without positions: pixels per array step, place = (array coordinate - 1) * spot_px."""

    @property
    def where(self) -> str:
        """How sentences name this section."""
        return f"section '{self.section}' ({self.counts})"


@dataclass(frozen=True)
class BarcodeMatch:
    """Rows of the counts and rows of the places that belong together, in the order of the counts."""

    counts: Int64[np.ndarray, "spot"]
    places: Int64[np.ndarray, "spot"]
    notes: Notes


def match(counts: list[str], places: list[str], where: str) -> BarcodeMatch:
    """Join counts with places on their spots' names; what stands on one side only is dropped, and noted.

    Raises SectionError where a name occurs twice on one side, or where no name is on both.
    """
    for names, what in ((counts, "counts"), (places, "places")):
        if len(set(names)) < len(names):
            twice = [name for name, times in Counter(names).items() if times > 1]
            msg = f"{where} has {len(twice)} spots more than once among its {what}: {some(twice)}"
            raise SectionError(msg)
    at = {name: row for row, name in enumerate(places)}
    both = [row for row, name in enumerate(counts) if name in at]
    if not both:
        msg = (
            f"{where}: no spot has both counts and a place; counts are of {some(counts, 3)}, places of "
            f"{some(places, 3)}: are the two files of one section?"
        )
        raise SectionError(msg)
    known = set(counts)
    notes: Notes = {}
    dropped(notes, "no_place", [name for name in counts if name not in at])
    dropped(notes, "no_counts", [name for name in places if name not in known])
    rows = np.asarray(both, dtype=np.int64)
    return BarcodeMatch(rows, np.asarray([at[counts[row]] for row in both], dtype=np.int64), notes)


def dropped(notes: Notes, reason: str, names: list[str]) -> None:
    """Note how many spots were dropped for a reason, and the first five of them."""
    notes[f"dropped_{reason}"] = len(names)
    if names:
        notes[f"dropped_{reason}_first"] = names[:5]


def settle_mpp(source: SectionSource, by_pitch: float | None, notes: Notes) -> float:
    """Return the um/px in force: the one given, else the one from the spots' pitch; note which, and both.

    Raises SectionError where there is neither, where it is no microscope's, or where the two contradict each other.
    """
    given = source.mpp
    if by_pitch is not None:
        notes["mpp_by_pitch"] = by_pitch
    mpp = given if given is not None else by_pitch
    notes["mpp_from"] = "given" if given is not None else "pitch"
    if mpp is None:
        msg = f"{source.where}: um/px is not known: too few spots, or spots on one line, have no pitch; give mpp"
        raise SectionError(msg)
    if not is_plausible(mpp):
        msg = f"{source.where} has {mpp} um/px ({notes['mpp_from']}), which is no microscope's: give mpp"
        raise SectionError(msg)
    if by_pitch is not None and abs(mpp / by_pitch - 1.0) > AGREEMENT:
        msg = (
            f"{source.where}: mpp {mpp:.4g} was given, but the spots' pitch says {by_pitch:.4g} um/px: positions must "
            "be in pixels of the full-resolution image, and mpp must be that image's"
        )
        raise SectionError(msg)
    return mpp
