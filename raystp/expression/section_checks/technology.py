"""Technologies of spots, by their printed array: how long a step is in um, and what distances are known."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from raystp.expression.section_checks.lattice import HEXAGONAL, SQUARE, ArrayFit, fit_array

PARITY_SHARE = 0.9
"""Share of spots whose x + y has one parity, from which a legacy array is a checkerboard; by chance it is a half."""
PARITY_SPOTS = 8
"""Fewer spots have one parity by chance."""
SHAPE_TOLERANCE = 0.25
"""How far the ratio of column and row steps may be from the technology's: stretch and noise."""


@dataclass(frozen=True)
class Technology:
    """A printed array of spots."""

    name: str
    step: tuple[float, float]
    """Length of one array column and of one array row, in units of `step_um`."""
    step_um: float
    pitch_um: float
    """Distance between neighbouring spots."""
    spot_um: float
    mirrors: bool
    """Whether a mirrored fit is possible: another corner as origin, or a stage that mirrors."""
    mpp_wins: bool
    """Whether a given um/px wins against the array; else a contradiction is an error."""


VISIUM = Technology("Visium", HEXAGONAL, 100.0, 100.0, 55.0, mirrors=False, mpp_wins=False)
ST_1K = Technology("legacy ST, 1k array", SQUARE, 200.0, 200.0, 100.0, mirrors=True, mpp_wins=True)
ST_2K = Technology("legacy ST, 2k array", SQUARE, 100.0, 100.0 * 2**0.5, 100.0, mirrors=True, mpp_wins=True)


def visium_hd(bin_um: float) -> Technology:
    """Return Visium HD with square bins of this size; its instrument mirrors the array."""
    return Technology(f"Visium HD, {bin_um:g} um bins", SQUARE, bin_um, bin_um, bin_um, mirrors=True, mpp_wins=False)


@dataclass(frozen=True)
class KnownPitch:
    """Distances between neighbouring spots of a technology whose array a file does not state."""

    name: str
    um: tuple[float, ...]
    lattice: str
    """`hexagonal` or `square`."""


KNOWN_PITCHES = (
    KnownPitch("Visium", (100.0,), "hexagonal"),
    KnownPitch("legacy ST", (200.0, 150.0, 100.0 * 2**0.5), "square"),
    KnownPitch("pooled Xenium", (100.0,), "square"),
    KnownPitch("pooled Visium HD", (128.0,), "square"),
    KnownPitch("bins of Visium HD", (2.0, 8.0, 16.0), "square"),
)
"""HEST pools Xenium to squares of 100 um, and Visium HD to those of 128 um. Finer grids, such as Stereo-seq's of 25 and
50 um, are not among them: a um/px that is 2 or 4 times too small makes one of them of Visium's 100 um."""


def legacy_array(array: Float64[np.ndarray, "place 2"]) -> Technology:
    """Return which legacy array these coordinates (x, y) are of: 2k, if nearly all x + y have one parity, else 1k."""
    return ST_2K if _one_parity(array) else ST_1K


def technology_of(
    array: Float64[np.ndarray, "place 2"], xy: Float64[np.ndarray, "place 2"]
) -> tuple[Technology | None, ArrayFit | None]:
    """Return the technology that an array of unknown origin shows, and the fit of the places to it.

    Only the hexagonal array of Visium has one parity and rows that are 1.73 times as far apart as columns. A square
    array may be of several technologies: the fit is returned without one.
    """
    fit = fit_array(array, xy, SQUARE)
    if fit is None:
        return None, None
    hexagonal = HEXAGONAL[1] / HEXAGONAL[0]
    ratio = fit.row_px / max(fit.column_px, 1e-12)
    if abs(ratio / hexagonal - 1) <= SHAPE_TOLERANCE and _one_parity(array, least=3):
        return VISIUM, fit_array(array, xy, HEXAGONAL)
    return None, fit


def looks_hexagonal(array: Float64[np.ndarray, "place 2"]) -> bool:
    """Return whether coordinates are those of a Visium array: whole numbers whose sums have one parity."""
    known = array[np.isfinite(array).all(axis=1)]
    whole = bool((known == np.rint(known)).all()) and len(known) > 0
    return whole and _one_parity(known, share=1.0)


def _one_parity(
    array: Float64[np.ndarray, "place 2"], *, share: float = PARITY_SHARE, least: int = PARITY_SPOTS
) -> bool:
    known = array[np.isfinite(array).all(axis=1)]
    odd = np.rint(known).sum(axis=1) % 2 != 0
    return len(known) >= least and max(float(odd.mean()), 1 - float(odd.mean())) >= share
