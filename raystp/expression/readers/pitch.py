"""Fit the printed array to the spots' positions in the image, to find the pitch in pixels.

The distance to the nearest neighbour is biased where spots are jittered. In HER2ST, where detected spots are off by
about 24 px, its median gives 0.733-0.737 um/px. The least-squares fit gives 0.686-0.689, and tolerates holes in the
array.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from raystp.errors import SectionError

SQUARE = (1.0, 1.0)
"""Legacy arrays: one pitch per step of array column and row."""
HEXAGONAL = (0.5, 3**0.5 / 2)
"""Visium: rows are shifted by half a pitch, and array columns count half pitches."""

MAX_ASPECT = 0.10
"""Largest relative difference of the fit's two axes. HER2ST's differ by 1 %; mixed-up columns differ by 70 %."""
MAX_RESIDUAL = 0.35
"""Largest root mean square distance from the array, in pitches; beyond, the positions do not follow the array."""


@dataclass(frozen=True)
class SpotLattice:
    """The array in the image."""

    pitch_px: float
    mirrored: bool
    """Whether the array is mirrored: the image is flipped, or x and y are swapped."""


def fit_lattice(
    array: Float64[np.ndarray, "spot 2"],
    xy: Float64[np.ndarray, "spot 2"],
    step: tuple[float, float],
    origin: str,
) -> SpotLattice | None:
    """Fit positions in px to array coordinates (column, row), whose steps are `step` pitches long.

    Any rotation fits. Spots beyond 4 robust standard deviations are left out of a second fit. Returns None where the
    spots do not span a plane; raises SectionError where they do not follow their array coordinates.
    """
    known = np.isfinite(array).all(axis=1) & np.isfinite(xy).all(axis=1)
    xy = xy[known]
    design = np.column_stack([array[known] * np.asarray(step), np.ones(int(known.sum()))])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    fit, distance = _least_squares(design, xy)
    inliers = distance <= 4 * 1.4826 * np.median(distance) + 1e-9 * np.abs(xy).max()
    if np.linalg.matrix_rank(design[inliers]) == design.shape[1]:
        fit, distance = _least_squares(design[inliers], xy[inliers])
    area = float(np.linalg.det(fit[:2]))
    longer, shorter = np.linalg.svd(fit[:2], compute_uv=False).tolist()
    residual = float(np.sqrt(np.square(distance).mean()))
    if shorter < (1 - MAX_ASPECT) * longer or residual > MAX_RESIDUAL * shorter:
        msg = (
            f"{origin}: the spots do not follow their array coordinates: a step is {longer:.1f} px along one axis and "
            f"{shorter:.1f} px along the other, spots are off by {residual:.1f} px (root mean square); check the "
            "columns of the positions"
        )
        raise SectionError(msg)
    return SpotLattice(pitch_px=abs(area) ** 0.5, mirrored=area < 0)


def _least_squares(
    design: Float64[np.ndarray, "spot 3"], xy: Float64[np.ndarray, "spot 2"]
) -> tuple[Float64[np.ndarray, "3 2"], Float64[np.ndarray, "spot"]]:
    fit = np.linalg.lstsq(design, xy, rcond=None)[0]
    return fit, np.hypot(*(xy - design @ fit).T)
