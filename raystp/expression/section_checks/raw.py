"""A section as its layout's reader parsed it: no choice is made here, and nothing is checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float64, Int64

from raystp.expression.section_checks.technology import Technology

Notes = dict[str, object]
"""What was dropped or assumed, as plain JSON values: `dropped_...`, `mpp_from`, ..., and `warnings`, a list."""


@dataclass(frozen=True)
class RawPlaces:
    """The places that the files list: those of the counts' spots, or of a whole array."""

    names: list[str]
    xy: Float64[np.ndarray, "place 2"]
    """Centres (x = column, y = row) in px of the full-resolution image."""
    in_tissue: list[object] | None = None
    """The flag of each place as stored; None: the files have no flag."""
    array: Float64[np.ndarray, "place 2"] | None = None
    """(column, row) on the printed array; None: the files have no array."""

    def take(self, rows: Int64[np.ndarray, "row"]) -> "RawPlaces":
        """Return only these places, in this order."""
        flags = self.in_tissue
        return RawPlaces(
            names=[self.names[row] for row in rows.tolist()],
            xy=self.xy[rows],
            in_tissue=None if flags is None else [flags[row] for row in rows.tolist()],
            array=None if self.array is None else self.array[rows],
        )


@dataclass(frozen=True)
class RawGenes:
    """The columns of the counts."""

    names: list[str]
    ids: list[str] | None = None
    kinds: list[str] | None = None
    """Feature types, as Space Ranger names them."""
    symbols: Mapping[str, list[str]] = field(default_factory=dict)
    """Columns that may hold the symbols where `names` are Ensembl ids, by their names in the file."""


@dataclass(frozen=True)
class Scale:
    """Lengths of a section, once its um/px is known."""

    mpp: float
    pitch_um: float
    spot_diameter_um: float


@dataclass(frozen=True)
class LibraryFacts:
    """What a file states about one library."""

    factors: Mapping[str, float] = field(default_factory=dict)
    """Space Ranger's scale factors."""
    stored_mpp: tuple[str, float] | None = None
    """um/px as the file states it, and where."""
    mirroring: bool = False
    """Whether the instrument itself may mirror the array (CytAssist)."""


@dataclass(frozen=True)
class RawSection:
    """Counts, places and everything else that a layout's files state about one section or several."""

    counts: sp.csr_matrix
    """Spots x features."""
    spots: list[str]
    genes: RawGenes
    places: RawPlaces
    keys: list[str] | None = None
    """What joins counts and places, where it is not the spots' names."""
    libraries: list[str] | None = None
    """The library of each spot, where the files state it."""
    facts_of: Mapping[str, LibraryFacts] = field(default_factory=dict)
    """What the files state about each library; `facts` is that of the chosen one."""
    facts: LibraryFacts = field(default_factory=LibraryFacts)
    own_places: bool = False
    """Whether counts and places are of one table, and not of two files."""
    technology: Technology | None = None
    """The technology that the layout implies; None: find it from the array, if there is one."""
    pitches_of: tuple[str, ...] = ()
    """Names of `KNOWN_PITCHES` that the files leave possible, where their array is not known; none: it may be any."""
    flag_may_be_void: bool = False
    """Whether `in_tissue` 0 everywhere can mean that it was never set (HEST)."""
    stored_um: Mapping[str, float] = field(default_factory=dict)
    """`spot_diameter_um` and `pitch_um` of a file that raystp wrote."""
    lattice_pitch_px: float | None = None
    """Distance of neighbouring spots by the array, once it is fitted; a layout that pools knows it from its bins."""
    scale: Scale | None = None

    def take(self, rows: Int64[np.ndarray, "row"]) -> "RawSection":
        """Return only these spots of the counts, in this order; the places are unchanged."""
        kept = rows.tolist()
        return replace(
            self,
            counts=self.counts[rows],
            spots=[self.spots[row] for row in kept],
            keys=None if self.keys is None else [self.keys[row] for row in kept],
            libraries=None if self.libraries is None else [self.libraries[row] for row in kept],
        )


def note_dropped(notes: Notes, reason: str, names: list[str]) -> None:
    """Note how many spots were dropped for a reason, and the first five of them."""
    notes[f"dropped_{reason}"] = len(names)
    if names:
        notes[f"dropped_{reason}_first"] = names[:5]


def warn(notes: Notes, warning: str) -> None:
    """Add a warning to the notes."""
    warnings = notes.setdefault("warnings", [])
    assert isinstance(warnings, list)
    warnings.append(warning)


def warnings_of(notes: Notes) -> list[str]:
    """Return the warnings in the notes."""
    warnings = notes.get("warnings", [])
    assert isinstance(warnings, list)
    return warnings


def totals(counts: sp.csr_matrix) -> Float64[np.ndarray, "spot"]:
    """Return the total counts of each spot."""
    return np.asarray(counts.sum(axis=1), np.float64).ravel()


def rows_where(mask: Bool[np.ndarray, "row"]) -> Int64[np.ndarray, "kept"]:
    """Return the rows at which a mask is true."""
    return np.flatnonzero(mask).astype(np.int64)
