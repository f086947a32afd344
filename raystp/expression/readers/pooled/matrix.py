"""Add up a 10x feature-barcode matrix (HDF5) over squares, slab by slab: 10^7 bins of 2 um do not fit in memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import h5py
import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from jaxtyping import Int64, Num

from raystp.errors import SectionError
from raystp.expression.readers.pooled.sums import SparseSum
from raystp.expression.section_checks.raw import RawGenes
from raystp.hdf5 import checked_hdf5
from raystp.storage import StoragePath

BARCODES = 1 << 16
"""Barcodes of a slab at most."""
VALUES = 1 << 22
"""Stored values of a slab at most, unless one barcode has more."""
MAX_BARCODES = 100_000_000
"""2 um bins of two capture areas of 11 mm are 6 x 10^7."""

SquareOf = Callable[[pa.StringArray], Int64[np.ndarray, "barcode"]]
"""Return the square of each barcode, or -1 for one that is in none."""

_FAULTS = (KeyError, ValueError, TypeError, AttributeError, OSError, IndexError, RuntimeError, OverflowError)


@dataclass(frozen=True)
class PooledMatrix:
    """Counts of squares."""

    counts: sp.csr_matrix
    """Squares x features."""
    genes: RawGenes
    barcodes: int
    """Barcodes of the file."""


@dataclass(frozen=True)
class _Stored:
    """The datasets of the group `matrix`, whose lengths fit."""

    data: h5py.Dataset
    indices: h5py.Dataset
    indptr: h5py.Dataset
    barcodes: h5py.Dataset
    genes: RawGenes


def read_features(path: StoragePath, origin: str) -> RawGenes:
    """Return only the features of a matrix; raises SectionError for another file."""
    with checked_hdf5(path, SectionError) as local, h5py.File(local, "r") as file:
        try:
            return _genes(file["matrix"]["features"])
        except _FAULTS as error:
            raise _other(path, origin, error) from None


def pool_matrix(path: StoragePath, origin: str, squares: int, square_of: SquareOf) -> PooledMatrix:
    """Sum the counts of the barcodes of each square; raises SectionError for another file or other values.

    Peak memory is that of the sum and of one slab.
    """
    with checked_hdf5(path, SectionError) as local, h5py.File(local, "r") as file:
        try:
            stored = _open(file)
            total = SparseSum(squares, len(stored.genes.names))
            for first, last, ends in _slabs(stored):
                names = _texts(stored.barcodes[first:last])
                of_barcode = square_of(names)
                of_value = np.repeat(of_barcode, np.diff(ends))
                features = stored.indices[ends[0] : ends[-1]]
                values = stored.data[ends[0] : ends[-1]]
                _check(features, values, len(stored.genes.names))
                kept = of_value >= 0
                total.add(of_value[kept], features[kept].astype(np.int32), values[kept])
            return PooledMatrix(total.finish(), stored.genes, len(stored.barcodes))
        except SectionError:
            raise
        except _FAULTS as error:
            raise _other(path, origin, error) from None


def _other(path: StoragePath, origin: str, error: Exception) -> SectionError:
    return SectionError(f"{origin}: {path} is not a feature-barcode matrix of 10x Genomics: {error}")


def _open(file: h5py.File) -> _Stored:
    """Return the datasets; raises ValueError where their lengths do not fit, before any of them is read."""
    group = file["matrix"]
    genes = _genes(group["features"])
    stored = _Stored(group["data"], group["indices"], group["indptr"], group["barcodes"], genes)
    features, barcodes = (int(length) for length in group["shape"][:])
    lengths = (len(stored.indptr) - 1, len(stored.barcodes), len(genes.names))
    if lengths != (barcodes, barcodes, features):
        msg = f"its shape is {features} x {barcodes}, but it has {lengths[1]} barcodes and {lengths[2]} features"
        raise ValueError(msg)
    if barcodes > MAX_BARCODES:
        msg = f"it has {barcodes} barcodes, more than {MAX_BARCODES}"
        raise ValueError(msg)
    end = int(stored.indptr[-1])
    if not len(stored.data) == len(stored.indices) == end:
        msg = f"it has {len(stored.data)} values and {len(stored.indices)} indices, and indptr ends at {end}"
        raise ValueError(msg)
    return stored


def _genes(features: h5py.Group) -> RawGenes:
    columns = [_texts(features[name][:]).to_pylist() for name in ("name", "id", "feature_type")]
    names, ids, kinds = columns
    if not len(names) == len(ids) == len(kinds):
        msg = f"it has {len(names)} names, {len(ids)} ids and {len(kinds)} types of features"
        raise ValueError(msg)
    return RawGenes(names=names, ids=ids, kinds=kinds)


def _texts(values: np.ndarray) -> pa.StringArray:
    """Return strings of fixed or of any length; raises ValueError for other values and other encodings."""
    plain = values if values.dtype.kind == "S" else values.astype(object).tolist()
    return pa.array(plain).cast(pa.string())


def _slabs(stored: _Stored) -> Iterator[tuple[int, int, Int64[np.ndarray, "end"]]]:
    """Yield the first barcode of a slab, the one after its last, and `indptr` from the first to the last."""
    count = len(stored.barcodes)
    for first in range(0, count, BARCODES):
        ends = stored.indptr[first : min(first + BARCODES, count) + 1].astype(np.int64)
        if ends[0] < 0 or (np.diff(ends) < 0).any():
            msg = "indptr does not increase"
            raise ValueError(msg)
        at = 0
        while at < len(ends) - 1:
            end = max(at + 1, int(np.searchsorted(ends, ends[at] + VALUES, side="right")) - 1)
            yield first + at, first + end, ends[at : end + 1]
            at = end


def _check(features: Num[np.ndarray, "value"], values: Num[np.ndarray, "value"], count: int) -> None:
    """Raise ValueError for a feature that is not there, and for values that are no raw counts."""
    if features.size and not 0 <= int(features.min()) <= int(features.max()) < count:
        msg = f"indices go from {int(features.min())} to {int(features.max())}, and it has {count} features"
        raise ValueError(msg)
    odd = ~np.isfinite(values) | (values < 0) | (values != np.rint(values))
    if odd.any():
        msg = (
            f"{int(odd.sum())} of {len(values)} values of a part are not raw counts, which are whole and not negative: "
            f"the first is {values[odd][0]:g}"
        )
        raise ValueError(msg)
