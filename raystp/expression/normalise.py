"""Normalise raw counts: log1p of counts per ten thousand, over all genes of a section.

The total of a spot covers every gene that the section measured. Genes are selected afterwards. With a total over a
panel alone, the value of a gene would depend on the other genes in the panel.
"""

from typing import TypeAlias

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float32, Int

from raystp.errors import SectionError, some

CP10K = 1e4
"""Counts per spot after scaling: counts per ten thousand."""

FEWEST_GENES = 1000
"""A section with fewer genes is of a targeted assay: its totals depend on which genes were chosen."""

CountArray: TypeAlias = np.ndarray | sp.spmatrix | sp.sparray
"""`[spot gene]`, dense or scipy sparse."""


def targeted_warning(genes: int) -> str | None:
    """Return a warning about counts per ten thousand of few genes; None for a section of many."""
    if genes >= FEWEST_GENES:
        return None
    return (
        f"counts per 10,000 are of {genes} genes only: their level depends on which genes the assay measures, so "
        "MSE and MAE cannot be compared with those of other assays"
    )


def log1p_cp10k(
    counts: CountArray, *, target: float = CP10K, columns: Int[np.ndarray, "gene"] | None = None
) -> Float32[np.ndarray, "spot gene"]:
    """Return ln(1 + counts * target / total of the spot) as a dense array.

    `columns` selects genes after the totals are computed, and sets their order. Raises SectionError for a spot without
    counts: its expression is undefined.
    """
    scaled = log1p_scaled(counts, target=target)
    dense: np.ndarray = (scaled if columns is None else scaled[:, columns]).toarray()
    return dense.astype(np.float32)


def log1p_scaled(counts: CountArray, *, target: float = CP10K) -> sp.csr_matrix:
    """Return the values of `log1p_cp10k` as a sparse CSR matrix of float64; zeros stay zeros."""
    matrix = scaled_counts(counts, target=target)
    np.log1p(matrix.data, out=matrix.data)
    return matrix


def scaled_counts(counts: CountArray, *, target: float = CP10K) -> sp.csr_matrix:
    """Return counts * target / total of the spot, as a new CSR matrix of float64; raises as `log1p_cp10k` does."""
    matrix = sp.csr_matrix(counts, dtype=np.float64, copy=True)
    totals = np.asarray(matrix.sum(axis=1)).ravel()
    empty = np.flatnonzero(~(totals > 0))
    if empty.size:
        rows = some([str(row) for row in empty.tolist()])
        msg = f"{empty.size} of {len(totals)} spots have no counts (rows {rows}): remove them before normalising"
        raise SectionError(msg)
    matrix.data *= np.repeat(target / totals, np.diff(matrix.indptr))
    return matrix
