"""The labels that papers scored on, from raw counts.

They differ in the total that a count is divided by, in the logarithm, and in smoothing. Each function takes all spots
of a section: a spot's label can depend on other spots. NaN (a gene that was not measured) stays NaN. Where a total is 0
the label is 0, as the counts are.
"""

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float64
from scipy.spatial import KDTree

CP10K = 1e4


def log_counts(counts: Float64[np.ndarray, "spot gene"]) -> Float64[np.ndarray, "spot gene"]:
    """Return ln(1 + counts): no library size, so sequencing depth stays in the label."""
    return np.asarray(np.log1p(counts))


def log_share(
    counts: Float64[np.ndarray, "spot gene"], totals: Float64[np.ndarray, " spot"], *, scale: float = CP10K
) -> Float64[np.ndarray, "spot gene"]:
    """Return ln(1 + scale * counts / total of the spot); divide by ln(10) for log10."""
    return np.asarray(np.log1p(counts * (scale / _positive(totals))[:, None]))


def log_gene_share(counts: Float64[np.ndarray, "spot gene"]) -> Float64[np.ndarray, "spot gene"]:
    """Return log10(1 + 10,000 * counts / sum of the GENE over the section's spots); depth stays in the label.

    It is what a normalisation per row gives on a matrix of genes x spots.
    """
    share = counts * (CP10K / _positive(counts.sum(axis=0)))
    return np.asarray(np.log1p(share) / np.log(10))


def panel_totals(counts: Float64[np.ndarray, "spot gene"]) -> Float64[np.ndarray, " spot"]:
    """Return the counts of each spot over the panel alone; genes that were not measured are left out."""
    return np.asarray(np.nansum(counts, axis=1))


def mean_3x3(
    values: Float64[np.ndarray, "spot gene"], array: Float64[np.ndarray, "spot 2"]
) -> Float64[np.ndarray, "spot gene"]:
    """Return the mean over the 3 x 3 places of the array around each spot, INCLUDING the spot itself.

    Coordinates with fractions are rounded. At a border, or beside a place without a spot, the existing spots are
    averaged.
    """
    places = np.rint(array)
    tree = KDTree(places)
    pairs = tree.sparse_distance_matrix(tree, 1.0, p=np.inf, output_type="coo_matrix")
    near = sp.csr_matrix((np.ones(pairs.nnz), (pairs.row, pairs.col)), shape=pairs.shape)
    return np.asarray(near @ values / np.asarray(near.sum(axis=1)))


def _positive(totals: Float64[np.ndarray, " _"]) -> Float64[np.ndarray, " _"]:
    """Return the totals with 1 in place of 0."""
    return np.where(totals == 0, 1.0, totals)
