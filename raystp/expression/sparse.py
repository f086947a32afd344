"""Check the index of a sparse matrix from a file: scipy's loops trust it, and read and write where it points.

scipy's `check_format` takes differences in the type of the index, where they overflow, and compares with NaN. A matrix
is also converted to CSR before anybody can ask for the check. So each matrix of a file passes here first.
"""

import math
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Num

MAX_DENSE_BYTES = 16 << 30
"""Bytes in float64 of a matrix that is made dense: 10^5 cases of 20,000 genes."""


def csr_of(
    values: Num[np.ndarray, "value"],
    columns: Num[np.ndarray, "value_"],
    ends: Num[np.ndarray, "end"],
    shape: tuple[int, int],
) -> sp.csr_matrix:
    """Return a CSR matrix of three arrays; raises ValueError where they are not one of this shape."""
    _check(values, columns, ends, shape)
    return sp.csr_matrix((values, columns, ends), shape=shape)


def check_sparse(matrix: object) -> None:
    """Raise ValueError for a CSR or CSC matrix whose index leads out of its arrays; another object passes."""
    stored: Any = matrix  # scipy has no types
    if sp.issparse(stored) and stored.format in ("csr", "csc"):
        rows, columns = stored.shape
        shape = (rows, columns) if stored.format == "csr" else (columns, rows)
        _check(stored.data, stored.indices, stored.indptr, shape)


def to_dense(matrix: sp.spmatrix) -> Num[np.ndarray, "row column"]:
    """Return a sparse matrix as an array; raises ValueError for one that is too large, or whose index is wrong."""
    check_sparse(matrix)
    needed = math.prod(matrix.shape) * max(8, matrix.dtype.itemsize)  # whole numbers are made float64 later
    if needed > MAX_DENSE_BYTES:
        msg = f"its shape {matrix.shape} needs {needed:,} bytes, and {MAX_DENSE_BYTES:,} are allowed"
        raise ValueError(msg)
    return np.asarray(matrix.toarray())


def _check(values: np.ndarray, minor: np.ndarray, ends: np.ndarray, shape: tuple[int, int]) -> None:
    if minor.dtype.kind not in "iu" or ends.dtype.kind not in "iu" or not values.ndim == minor.ndim == ends.ndim == 1:
        msg = f"its index is of type {minor.dtype} and {ends.dtype}, expected one row of whole numbers each"
        raise ValueError(msg)
    stored = min(len(values), len(minor))
    ordered = ends.astype(np.int64)  # above 2^63 it is negative, and not in order
    is_ordered = len(ordered) == shape[0] + 1 > 0 and ordered[0] == 0 and bool((ordered[1:] >= ordered[:-1]).all())
    if not is_ordered or len(values) != len(minor) or ordered[-1] > stored:
        msg = f"its {len(ends)} ends of rows do not lead from 0 to at most {stored} values in the shape {shape}"
        raise ValueError(msg)
    if len(minor) and not 0 <= int(minor.min()) <= int(minor.max()) < shape[1]:
        msg = f"its index goes from {int(minor.min())} to {int(minor.max())}, and {shape[1]} were declared"
        raise ValueError(msg)
