"""Fit the printed array to the spots' positions in the image, to find the pitch in pixels.

The distance to the nearest neighbour is biased where spots are jittered. In HER2ST, where detected spots are off by
about 24 px, its median gives 0.733-0.737 um/px. The least-squares fit gives 0.686-0.689, and tolerates holes in the
array.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.spatial import cKDTree

SQUARE = (1.0, 1.0)
"""Legacy arrays: one pitch per step of array column and row."""
HEXAGONAL = (0.5, 3**0.5 / 2)
"""Visium: rows are shifted by half a pitch, and array columns count half pitches."""

MAX_ASPECT = 0.25
"""Largest relative difference of the fit's two axes. Published images are stretched by up to 15 %; HER2ST's axes differ
by 1 %; mixed-up columns differ by 70 %."""
WARN_ASPECT = 0.05
MAX_RESIDUAL = 0.35
"""Largest root mean square distance from the array, in pitches; beyond, the positions do not follow the array."""


NEIGHBOUR_PITCHES = 1.2
"""Spots nearer than this many pitches are neighbours: the next ones are 1.41 or 1.73 pitches away."""
MIN_INTERIOR = 0.4
"""Share of spots that must have all neighbours of a lattice for it to be recognised."""


@dataclass(frozen=True)
class ArrayFit:
    """The array in the image."""

    pitch_px: float
    """Geometric mean of the fit's two axes, for a step of 1."""
    longer_px: float
    shorter_px: float
    """Lengths of the fit's two axes; they differ in a stretched image."""
    column_px: float
    row_px: float
    """Lengths of one step of the array column, and of the row."""
    residual_px: float
    """Root mean square distance of the spots from the array."""
    strays: int
    """Number of spots farther than half a pitch from their place on the array."""
    spots: int
    mirrored: bool
    """Whether the array is mirrored: the image is flipped, or x and y are swapped."""
    swapped: bool
    """Whether array columns run along y."""

    @property
    def follows(self) -> bool:
        """Whether the positions follow the array at all."""
        return (
            self.shorter_px >= (1 - MAX_ASPECT) * self.longer_px and self.residual_px <= MAX_RESIDUAL * self.shorter_px
        )

    @property
    def stretched(self) -> bool:
        """Whether the two axes differ by more than what detection of spots explains."""
        return self.shorter_px < (1 - WARN_ASPECT) * self.longer_px


def fit_array(
    array: Float64[np.ndarray, "spot 2"], xy: Float64[np.ndarray, "spot 2"], step: tuple[float, float]
) -> ArrayFit | None:
    """Fit positions in px to array coordinates (column, row), whose steps are `step` pitches long.

    Any rotation fits. Spots beyond 4 robust standard deviations are left out of a second fit. Returns None where the
    spots do not span a plane.
    """
    known = np.isfinite(array).all(axis=1) & np.isfinite(xy).all(axis=1)
    if not known.any():
        return None
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
    if not shorter > 0:
        return None
    column, row = fit[0], fit[1]
    return ArrayFit(
        pitch_px=abs(area) ** 0.5,
        longer_px=longer,
        shorter_px=shorter,
        column_px=float(np.hypot(*column)) * step[0],
        row_px=float(np.hypot(*row)) * step[1],
        residual_px=float(np.sqrt(np.square(distance).mean())),
        strays=int((np.hypot(*(xy - design @ fit).T) > shorter / 2).sum()),
        spots=len(xy),
        mirrored=area < 0,
        swapped=bool(abs(column[1]) > abs(column[0])),
    )


def nearest_distance(xy: Float64[np.ndarray, "spot 2"]) -> float | None:
    """Return the median distance to the nearest other spot; None with fewer than two positions."""
    finite = xy[np.isfinite(xy).all(axis=1)]
    if len(finite) < 2:  # noqa: PLR2004 -- a distance is between two
        return None
    return float(np.median(cKDTree(finite).query(finite, k=2)[0][:, 1]))


def lattice_shape(xy: Float64[np.ndarray, "spot 2"]) -> str | None:
    """Return whether places lie on a `hexagonal` or a `square` lattice, by their neighbours; None for neither.

    A spot amid others has 6 neighbours within 1.2 pitches on a hexagonal lattice, and 4 on a square one.
    """
    finite = xy[np.isfinite(xy).all(axis=1)]
    pitch = nearest_distance(finite)
    if not pitch:
        return None
    distances = cKDTree(finite).query(finite, k=8)[0][:, 1:]  # infinite where there are fewer spots
    near = (distances <= NEIGHBOUR_PITCHES * pitch).sum(axis=1)
    six, four = float((near == 6).mean()), float((near == 4).mean())  # noqa: PLR2004 -- neighbours, see above
    if max(six, four) < MIN_INTERIOR:
        return None
    return "hexagonal" if six > four else "square"


def _least_squares(
    design: Float64[np.ndarray, "spot 3"], xy: Float64[np.ndarray, "spot 2"]
) -> tuple[Float64[np.ndarray, "3 2"], Float64[np.ndarray, "spot"]]:
    fit = np.linalg.lstsq(design, xy, rcond=None)[0]
    return fit, np.hypot(*(xy - design @ fit).T)
