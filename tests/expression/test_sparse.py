"""A sparse matrix from a file whose index leads out of its arrays is an error, before scipy reads or writes there."""

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pytest
import scipy.sparse as sp

from raystp.errors import SectionError
from raystp.expression.bulk.labels import read_bulk
from raystp.expression.sparse import csr_of, to_dense
from raystp.storage import StoragePath

WHOLE = sp.csr_matrix(np.arange(12.0).reshape(3, 4) + 1)


def _bulk(path: Path, matrix: sp.spmatrix, name: str, change: Callable[[np.ndarray], np.ndarray]) -> StoragePath:
    """Write three cases of four genes, then change a part of the index in the file."""
    adata = ad.AnnData(X=matrix.copy())
    adata.obs_names, adata.var_names = ["a", "b", "c"], ["A", "B", "C", "D"]
    adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        file[f"X/{name}"][:] = change(file[f"X/{name}"][:])
    return StoragePath.of(path)


def test_a_sound_matrix_of_either_order_is_read(tmp_path: Path) -> None:
    for matrix in (WHOLE, WHOLE.tocsc()):
        table = read_bulk(_bulk(tmp_path / "a.h5ad", matrix, "indices", lambda values: values))
        assert table.values.tolist() == WHOLE.toarray().tolist()


@pytest.mark.parametrize("matrix", [WHOLE, WHOLE.tocsc()], ids=["csr", "csc"])
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("indices", lambda values: values + 10**8, "its index goes from 100000000 to"),
        ("indices", lambda values: values - 1, "its index goes from -1 to"),
        ("indptr", lambda values: values + 10**6, "ends of rows do not lead from 0 to at most 12 values"),
        # From 10 or so to -2^31 is a step up in 32 bits, so scipy's own check passes it.
        ("indptr", lambda values: [*values[:-1].tolist(), -(2**31)], "ends of rows do not lead from 0"),
    ],
)
def test_an_index_that_leads_out_of_the_arrays_is_an_error(
    tmp_path: Path, matrix: sp.spmatrix, *, name: str, change: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    with pytest.raises(SectionError, match=message):
        read_bulk(_bulk(tmp_path / "a.h5ad", matrix, name, change))


def test_an_index_of_numbers_with_fractions_is_an_error() -> None:
    ends = np.array([0.0, np.nan])
    with pytest.raises(ValueError, match="expected one row of whole numbers each"):
        csr_of(np.ones(1), np.zeros(1, np.int32), ends, (1, 4))


def test_a_small_file_of_a_large_shape_is_not_made_dense() -> None:
    with pytest.raises(ValueError, match=r"its shape \(1000000, 1000000\) needs 8,000,000,000,000 bytes"):
        to_dense(sp.csr_matrix((10**6, 10**6)))


def test_whole_numbers_count_as_the_float64_that_they_become() -> None:
    with pytest.raises(ValueError, match=r"its shape \(100000, 100000\) needs 80,000,000,000 bytes"):
        to_dense(sp.csr_matrix((10**5, 10**5), dtype=np.int8))


def test_a_shape_below_zero_is_an_error() -> None:
    with pytest.raises(ValueError, match="its 0 ends of rows do not lead from 0"):
        csr_of(np.ones(0), np.zeros(0, np.int32), np.zeros(0, np.int32), (-1, 4))
