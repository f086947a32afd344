"""Matrices of an h5ad that are written part by part: dense in float32 or float16, or as compressed sparse rows."""

from typing import Literal, Protocol, runtime_checkable

import h5py
import numpy as np
from jaxtyping import Float32

from raystp.errors import ModelError

MatrixForm = Literal["float32", "float16", "csr"]
"""How a matrix is stored; `csr` keeps float32 values, those that are 0 are left out."""

LARGEST_HALF = float(np.finfo(np.float16).max)

CHUNK_VALUES = 1 << 18
"""Values in a chunk of a sparse matrix."""


@runtime_checkable
class GrowingMatrix(Protocol):
    """A matrix of tiles and genes whose rows come in order."""

    def add(self, values: Float32[np.ndarray, "tile gene"], first: int) -> None:
        """Write some rows, the first of which is row `first` of the matrix."""

    def finish(self) -> None:
        """Write what is known only at the end."""


def create_matrix(file: h5py.File, name: str, shape: tuple[int, int], form: MatrixForm) -> GrowingMatrix:
    """Create a matrix of the given form in a file."""
    return SparseRows(file, name, shape) if form == "csr" else DenseMatrix(file, name, shape, form)


class DenseMatrix:
    """A contiguous dataset, which scanpy maps and reads fastest."""

    def __init__(self, file: h5py.File, name: str, shape: tuple[int, int], dtype: str) -> None:
        # Each row is written once, so zeros are not written first.
        self._dataset = file.create_dataset(name, shape, dtype, fill_time="never")
        set_encoding(self._dataset, "array", "0.2.0")

    def add(self, values: Float32[np.ndarray, "tile gene"], first: int) -> None:
        """Write some rows. Raises ModelError for values that float16 cannot hold: they would become infinite."""
        if self._dataset.dtype == np.float16 and (largest := np.nanmax(np.abs(values), initial=0.0)) > LARGEST_HALF:
            msg = f"values up to {largest:g} are beyond float16, which ends at {LARGEST_HALF:g}: set x=float32 or x=csr"
            raise ModelError(msg)
        self._dataset[first : first + len(values)] = values

    def finish(self) -> None:
        """Do nothing: each row is in its place."""


class SparseRows:
    """Compressed sparse rows; a missing value (NaN) is a stored one."""

    def __init__(self, file: h5py.File, name: str, shape: tuple[int, int]) -> None:
        self._group = file.create_group(name)
        set_encoding(self._group, "csr_matrix", "0.1.0")
        self._group.attrs["shape"] = np.asarray(shape, np.int64)
        for key, dtype in (("data", np.float32), ("indices", np.int32)):
            stored = self._group.create_dataset(key, (0,), dtype, maxshape=(None,), chunks=(CHUNK_VALUES,))
            set_encoding(stored, "array", "0.2.0")
        self._ends = [np.zeros(1, np.int64)]

    def add(self, values: Float32[np.ndarray, "tile gene"], first: int) -> None:  # noqa: ARG002 -- rows come in order
        """Append some rows."""
        from scipy.sparse import csr_matrix  # noqa: PLC0415 -- `--help` of `impute` reads this module

        rows = csr_matrix(values)
        start = int(self._ends[-1][-1])
        for key, added in (("data", rows.data), ("indices", rows.indices)):
            stored = self._group[key]
            stored.resize((start + len(added),))
            stored[start:] = added
        self._ends.append(start + rows.indptr[1:].astype(np.int64))

    def finish(self) -> None:
        """Write where each row ends."""
        stored = self._group.create_dataset("indptr", data=np.concatenate(self._ends))
        set_encoding(stored, "array", "0.2.0")


def set_encoding(element: h5py.HLObject, kind: str, version: str) -> None:
    """Set the attributes by which anndata recognises an element."""
    element.attrs["encoding-type"], element.attrs["encoding-version"] = kind, version
