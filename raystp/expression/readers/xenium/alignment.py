"""Read where the H&E lies on the morphology image, in both forms of Xenium Explorer.

A file of 3 x 3 numbers without a header is the matrix A that takes H&E px to morphology px. A file with the columns
fixedX, fixedY (morphology) and alignmentX, alignmentY (H&E) has pairs of points, to which A is fitted by least squares.
A place in um is at morphology px = um / pixel size, and at H&E px = the inverse of A. A may rotate, mirror and scale.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from raystp.errors import SectionError, some
from raystp.expression.readers.files.delimited import Cells, read_cells, to_numbers
from raystp.storage import StoragePath

POINTS = ("fixedX", "fixedY", "alignmentX", "alignmentY")
WHAT = f"an H&E alignment (3 x 3 numbers without a header, or points in the columns {', '.join(POINTS)})"

MAX_RESIDUAL_UM = 20.0
"""Largest root mean square distance of the points; two cells' diameters."""
LEAST_POINTS = 3
SIDE = 3


@dataclass(frozen=True)
class Alignment:
    """The affine map from H&E px to morphology px."""

    matrix: Float64[np.ndarray, "3 3"]
    pixel_um: float
    """um per px of the morphology image."""
    points: int = 0
    residual_um: float | None = None
    """Root mean square distance of the points from the map; None: the file has the map itself."""
    largest_um: float | None = None

    @property
    def mpp(self) -> float:
        """Um per px of the H&E: a mean of the two axes."""
        return float(self.pixel_um * abs(np.linalg.det(self.matrix[:2, :2])) ** 0.5)

    def to_image(self, um: Float64[np.ndarray, "place 2"]) -> Float64[np.ndarray, "place 2"]:
        """Return places (x, y) in um as (x, y) in px of the H&E."""
        morphology = np.column_stack([um / self.pixel_um, np.ones(len(um))])
        return np.ascontiguousarray(np.linalg.solve(self.matrix, morphology.T).T[:, :2])


def read_alignment(path: StoragePath, pixel_um: float, origin: str) -> Alignment:
    """Read either form; raises SectionError for another file, and for points that do not fit one map."""
    cells = read_cells(path, POINTS, WHAT, origin)
    if cells.header is not None:
        return _of_points(cells, path, pixel_um, origin)
    width = len(cells.rows[0])
    columns = [
        to_numbers([row[column] for row in cells.rows], f"column {column + 1}", path, origin) for column in range(width)
    ]
    matrix = np.column_stack(columns)
    if matrix.shape != (SIDE, SIDE):
        msg = (
            f"{origin}: {path} is not {WHAT}: it has {matrix.shape[0]} rows of {matrix.shape[1]} numbers, and no header"
        )
        raise SectionError(msg)
    last = matrix[2].tolist()
    if not np.allclose(last, [0.0, 0.0, 1.0], atol=1e-9):
        shown = ", ".join(f"{value:g}" for value in last)
        msg = f"{origin}: {path} is not {WHAT}: its last row is {shown}, and not 0, 0, 1: is it transposed?"
        raise SectionError(msg)
    return _checked(Alignment(matrix, pixel_um), path, origin)


def _of_points(cells: Cells, path: StoragePath, pixel_um: float, origin: str) -> Alignment:
    header = cells.header or []
    absent = [name for name in POINTS if name.casefold() not in header]
    if absent:
        msg = f"{origin}: {path} is not {WHAT}: it has no column {some(absent)}; it has {some(header, 8)}"
        raise SectionError(msg)
    values = [to_numbers(cells.column(name.casefold()), name, path, origin) for name in POINTS]
    fixed, moving = np.column_stack(values[:2]), np.column_stack(values[2:])
    design = np.column_stack([moving, np.ones(len(moving))])
    finite = bool(np.isfinite(fixed).all() and np.isfinite(design).all())
    if len(design) < LEAST_POINTS or not finite or np.linalg.matrix_rank(design) < SIDE:
        msg = (
            f"{origin}: {path} has {len(design)} pairs of points; an alignment needs at least {LEAST_POINTS} that are "
            "finite and not on one line"
        )
        raise SectionError(msg)
    fit = np.linalg.lstsq(design, fixed, rcond=None)[0]
    distance = np.hypot(*(fixed - design @ fit).T) * pixel_um
    residual = float(np.sqrt(np.square(distance).mean()))
    if residual > MAX_RESIDUAL_UM:
        msg = (
            f"{origin}: the {len(design)} pairs of points of {path} are {residual:.1f} um (root mean square) from "
            f"their affine map, more than {MAX_RESIDUAL_UM:g}; the worst is pair {int(distance.argmax()) + 1} with "
            f"{distance.max():.1f} um: remove wrong pairs, or align the H&E again"
        )
        raise SectionError(msg)
    matrix = np.vstack([fit.T, [0.0, 0.0, 1.0]])
    return _checked(Alignment(matrix, pixel_um, len(design), residual, float(distance.max())), path, origin)


def _checked(found: Alignment, path: StoragePath, origin: str) -> Alignment:
    if not np.isfinite(found.matrix).all() or not abs(np.linalg.det(found.matrix[:2, :2])) > np.finfo(np.float64).tiny:
        msg = f"{origin}: {path} is not {WHAT}: its matrix cannot be inverted"
        raise SectionError(msg)
    return found
