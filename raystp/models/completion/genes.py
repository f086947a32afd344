"""Choose the genes to complete: expressed in most spots, and of a spatial pattern.

The rule of SpaRED (arXiv 2505.02980): genes are sorted by the least of their shares of expressed spots over the
sections. The longest prefix whose mean share is high enough stays, and of it the genes of highest mean Moran's I. Pass
training sections only.
"""

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float64, Int64

from raystp.models.completion.values import SectionValues, neighbour_graph


def expressed_genes(
    shares: Float64[np.ndarray, "section gene"], overall: Float64[np.ndarray, "gene"], least: float
) -> Int64[np.ndarray, "_"]:
    """Return the columns of the longest prefix whose mean of `overall` is at least `least`, highest share first.

    `shares` are the shares of spots with a count in each section, and `overall` over all spots. Ties are by column.
    """
    order = np.argsort(-shares.min(axis=0), kind="stable")
    means = np.cumsum(overall[order]) / np.arange(1, len(order) + 1)
    passing = np.flatnonzero(means >= least)
    return order[: passing[-1] + 1] if len(passing) else order[:0]


def morans_i(section: SectionValues) -> Float64[np.ndarray, "gene"]:
    """Return Moran's I of each gene: 1 for a smooth pattern, about 0 for none. It is 0 for a constant gene.

    The weights of a spot's neighbours add to 1. A gene that was not measured is NaN.
    """
    centred = section.values.astype(np.float64)
    centred -= centred.mean(axis=0)
    graph = neighbour_graph(section.xy).astype(np.float64)
    degree = np.asarray(graph.sum(axis=1)).ravel()
    connected = int((degree > 0).sum())
    if not connected:
        return np.where(section.measured, 0.0, np.nan)
    lagged = sp.diags(1 / np.maximum(degree, 1)) @ graph @ centred
    variance = np.square(centred).sum(axis=0)
    varies = variance > 1e-12 * max(1, len(centred))
    covariance = (centred * lagged).sum(axis=0) * len(centred) / connected
    found = np.where(varies, covariance / np.where(varies, variance, 1), 0.0)
    return np.where(section.measured, found, np.nan)


def most_spatial(sections: list[SectionValues], count: int) -> Int64[np.ndarray, "_"]:
    """Return the columns of the `count` genes of highest mean Moran's I over the sections, highest first."""
    mean = np.mean([morans_i(section) for section in sections], axis=0)
    return np.argsort(-mean, kind="stable")[:count]
