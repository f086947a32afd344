"""Raw counts to expression: log1p of counts per ten thousand, over all genes of the section.

The total is over every gene that the section measured, and genes are chosen afterwards: a total over a panel alone
would make each gene's value depend on which others were asked for.
"""

from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float32, Int

from raystp.errors import SectionError, some

TARGET = 1e4
"""Counts per spot after scaling: CP10k."""


def log1p_cp10k(
    counts: Any, *, target: float = TARGET, columns: Int[np.ndarray, "gene"] | None = None
) -> Float32[np.ndarray, "spot gene"]:
    """Return ln(1 + counts * target / total of the spot), dense.

    `counts` is `[spot gene]`, scipy sparse or dense; `columns` picks genes after the totals, in its own order. Raises
    SectionError for a spot without counts, which has no expression.
    """
    scaled = scaled_log1p(counts, target=target)
    if columns is not None:
        scaled = scaled[:, columns]
    return scaled.toarray().astype(np.float32)  # type: ignore[no-any-return]  # scipy has no types


def scaled_log1p(counts: Any, *, target: float = TARGET) -> Any:
    """Return what `log1p_cp10k` does, as a sparse CSR matrix in float64: zeros stay zeros."""
    matrix = sp.csr_matrix(counts, dtype=np.float64, copy=True)
    totals = np.asarray(matrix.sum(axis=1)).ravel()
    empty = np.flatnonzero(~(totals > 0))
    if empty.size:
        rows = some([str(row) for row in empty.tolist()])
        msg = f"{empty.size} of {len(totals)} spots have no counts (rows {rows}), so no expression: drop them first"
        raise SectionError(msg)
    matrix.data *= np.repeat(target / totals, np.diff(matrix.indptr))
    np.log1p(matrix.data, out=matrix.data)
    return matrix
