"""The adaptive median: a missing value is the median of a neighbourhood that grows until its median is above 0.

SEPAL (Mejia et al. 2023, arXiv 2309.01036) and SpaRED use it as their baseline. Zeros count in the median, so it fails
where most of a gene's entries are missing: the gene's mean is then closer to the truth.
"""

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float32

from raystp.models.arrays import Arrays
from raystp.models.completion.options import MedianOptions
from raystp.models.completion.values import SectionValues, keep_real, neighbour_graph


@dataclass(frozen=True)
class MedianCompletion:
    """The adaptive median; it has nothing to learn."""

    options: MedianOptions = field(default_factory=MedianOptions)

    def complete(self, section: SectionValues) -> Float32[np.ndarray, "spot gene"]:
        """Return the section with each missing entry replaced.

        It becomes the median of the gene over the spot and its neighbours of 1 hop; if that is 0, of 2 hops, then more.
        If all are 0, it is the median of the gene's real values in the section, or 0 without any.
        """
        values, measured = section.values, section.measured
        filled = values.copy()
        graph = neighbour_graph(section.xy)
        reached = sp.identity(len(values), dtype=np.bool_, format="csr")
        for _ in range(self.options.hops):
            reached = (reached + reached @ graph).astype(np.bool_).tocsr()
            open_spots = np.flatnonzero((filled == 0).any(axis=1))
            for spot in open_spots.tolist():
                genes = np.flatnonzero(filled[spot] == 0)
                near = reached.indices[reached.indptr[spot] : reached.indptr[spot + 1]]
                filled[spot, genes] = np.median(values[np.ix_(near, genes)], axis=0)
        fallback = np.zeros(values.shape[1], np.float32)
        known = measured & section.real.any(axis=0)
        fallback[known] = np.nanmedian(np.where(section.real, values, np.nan)[:, known], axis=0)
        return keep_real(section, np.where(filled == 0, fallback, filled))

    def arrays(self) -> Arrays:
        """Return no arrays."""
        return {}
