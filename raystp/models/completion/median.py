"""The adaptive median: a missing value is the median of a neighbourhood that grows until its median is above 0.

SEPAL (Mejia et al. 2023, arXiv 2309.01036) and SpaRED use it as their baseline. Zeros count in the median, so it fails
where most of a gene's entries are missing: the gene's mean is then closer to the truth.
"""

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float32

from raystp.models.completion.values import SectionValues, keep_real, touching

HOPS = 4
"""Largest neighbourhood, in steps from spot to spot."""


def complete_by_median(section: SectionValues, *, diagonal: bool = False) -> Float32[np.ndarray, "spot gene"]:
    """Return the section with each missing entry replaced.

    It becomes the median of the gene over the spot and its neighbours of 1 hop; if that is 0, of 2, 3, then 4 hops; if
    that is 0 too, the median of the gene's real values in the section, or 0 without any. `diagonal` counts the corners
    of a square array as neighbours.
    """
    values = section.values
    filled = values.copy()
    graph = touching(section.xy, diagonal=diagonal)
    reached = sp.identity(len(values), dtype=np.bool_, format="csr")
    for _ in range(HOPS):
        reached = (reached + reached @ graph).astype(np.bool_).tocsr()
        open_spots = np.flatnonzero((filled == 0).any(axis=1))
        for spot in open_spots.tolist():
            genes = np.flatnonzero(filled[spot] == 0)
            near = reached.indices[reached.indptr[spot] : reached.indptr[spot + 1]]
            filled[spot, genes] = np.median(values[np.ix_(near, genes)], axis=0)
    real = np.where(section.real, values, np.nan)
    known = section.real.any(axis=0)
    fallback = np.zeros(values.shape[1], np.float32)
    fallback[known] = np.nanmedian(real[:, known], axis=0)
    return keep_real(section, np.where(filled == 0, fallback, filled))
