"""How many pixels lie between neighbouring spots: a least-squares fit of the printed array to the places in the image.

The nearest neighbour's distance is biased where spots are jittered: on HER2ST, where detected spots are off by some
24 px, its median gives 0.733-0.737 um/px; the fit gives 0.686-0.689, and holes in the array do not matter to it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from raystp.errors import SectionError

SQUARE = (1.0, 1.0)
"""Legacy arrays: one pitch per step of array column and row."""
HEXAGONAL = (0.5, 3**0.5 / 2)
"""Visium: rows are shifted by half a pitch, and array columns count the half pitches."""

UNEVEN = 0.10
"""The fit's two axes may differ by this share: HER2ST's differ by 1 %; columns that were mixed up differ by 70 %."""
STRAY = 0.35
"""A root mean square distance from the array beyond this share of the pitch is no array."""


@dataclass(frozen=True)
class SpotLattice:
    """The array as it lies in the image."""

    pitch_px: float
    mirrored: bool
    """The array is seen as in a mirror: a flipped image, or x and y swapped."""


def fit_lattice(
    array: Float64[np.ndarray, "spot 2"],
    xy: Float64[np.ndarray, "spot 2"],
    step: tuple[float, float],
    where: str,
) -> SpotLattice | None:
    """Fit places in px to array coordinates (column, row), whose steps are `step` pitches long.

    Any rotation fits. Spots beyond 4 robust standard deviations are left out of a second fit. Returns None where the
    spots do not span a plane; raises SectionError where they do not lie as their array coordinates say.
    """
    known = np.isfinite(array).all(axis=1) & np.isfinite(xy).all(axis=1)
    xy = xy[known]
    design = np.column_stack([array[known] * np.asarray(step), np.ones(int(known.sum()))])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    fit, off = _least_squares(design, xy)
    near = off <= 4 * 1.4826 * np.median(off) + 1e-9 * np.abs(xy).max()
    if np.linalg.matrix_rank(design[near]) == design.shape[1]:
        fit, off = _least_squares(design[near], xy[near])
    area = float(np.linalg.det(fit[:2]))
    longer, shorter = np.linalg.svd(fit[:2], compute_uv=False).tolist()
    stray = float(np.sqrt(np.square(off).mean()))
    if shorter < (1 - UNEVEN) * longer or stray > STRAY * shorter:
        msg = (
            f"{where}: the spots do not lie as their array coordinates say: a step is {longer:.1f} px one way and "
            f"{shorter:.1f} px the other, spots stray {stray:.1f} px from it: are columns of the positions mixed up?"
        )
        raise SectionError(msg)
    return SpotLattice(pitch_px=abs(area) ** 0.5, mirrored=area < 0)


def _least_squares(
    design: Float64[np.ndarray, "spot 3"], xy: Float64[np.ndarray, "spot 2"]
) -> tuple[Float64[np.ndarray, "3 2"], Float64[np.ndarray, "spot"]]:
    fit = np.linalg.lstsq(design, xy, rcond=None)[0]
    return fit, np.hypot(*(xy - design @ fit).T)
