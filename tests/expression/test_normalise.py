import numpy as np
import pytest
import scipy.sparse as sp

from raystp.errors import SectionError
from raystp.expression.normalise import log1p_cp10k

COUNTS = np.array([[1, 0, 3], [0, 10, 0]], dtype=np.float32)


def test_a_spot_is_scaled_to_ten_thousand_before_the_logarithm() -> None:
    expected = np.log([[2501, 1, 7501], [1, 10001, 1]])
    assert log1p_cp10k(COUNTS) == pytest.approx(expected, abs=1e-5)
    assert log1p_cp10k(COUNTS).dtype == np.float32
    assert np.expm1(log1p_cp10k(COUNTS, target=100.0)).sum(axis=1) == pytest.approx([100, 100], rel=1e-5)


def test_sparse_and_dense_agree_and_the_input_is_not_changed() -> None:
    sparse = sp.csr_matrix(COUNTS)
    assert (log1p_cp10k(sparse) == log1p_cp10k(COUNTS)).all()
    assert sparse.toarray().tolist() == COUNTS.tolist()


def test_depth_alone_changes_nothing() -> None:
    assert log1p_cp10k(COUNTS * 15) == pytest.approx(log1p_cp10k(COUNTS), abs=1e-5)


def test_genes_are_selected_after_the_total() -> None:
    columns = np.array([2, 0])
    assert (log1p_cp10k(COUNTS, columns=columns) == log1p_cp10k(COUNTS)[:, columns]).all()


def test_a_spot_without_counts_is_reported_by_row() -> None:
    with pytest.raises(SectionError, match=r"1 of 3 spots have no counts \(rows '1'\)"):
        log1p_cp10k(np.array([[1, 2], [0, 0], [3, 4]]))
