"""A shard's expression on disk, in three forms, and how it is opened again.

    <stem>.expression.npy            float32 or float16: rows as they are, one after the other
    <stem>.expression.values.npy     csr: the values that are not zero (float32; float16 in csr16),
    <stem>.expression.columns.npy         their columns (uint16 where genes are fewer than 65,536, else int32),
    <stem>.expression.starts.npy          and where each row begins (int64)

The description that `write_expression` returns (plain JSON values) names the files and their sha256, and nothing is
opened whose sha256 differs. Files are mapped copy-on-write: what a caller changes never reaches them.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64
from scipy import sparse

from raystp import artifacts
from raystp.errors import ArtifactError
from raystp.index.expression.files import write_files
from raystp.index.expression.forms import DenseExpression, Form, SparseExpression
from raystp.storage import StoragePath


@runtime_checkable
class ExpressionRows(Protocol):
    """A shard's expression in any form: rows, and its share of weighted sums over the whole bank's rows."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and genes."""
        ...

    @property
    def form(self) -> Form:
        """How the values are kept."""
        ...

    def rows(
        self, ids: Int64[np.ndarray, "row"], genes: Int64[np.ndarray, "gene"] | None = None
    ) -> Float32[np.ndarray, "row gene"]:
        """Return a dense copy of these rows (0 is the shard's first), in the order asked for, of these genes or all."""
        ...

    def share_of_sum(
        self,
        weights: Float32[np.ndarray, "query k"],
        rows: Int64[np.ndarray, "query k"],
        first_row: int = 0,
        genes: Int64[np.ndarray, "gene"] | None = None,
    ) -> Float32[np.ndarray, "query gene"]:
        """Return this shard's part of each query's weighted sum, of these genes in their order, or of all.

        `rows` are the bank's, of which this shard has those from `first_row` on; others count nothing and are not read.
        """
        ...

    def share_of_spread(
        self,
        weights: Float32[np.ndarray, "query k"],
        rows: Int64[np.ndarray, "query k"],
        mean: Float32[np.ndarray, "query gene"],
        first_row: int = 0,
        *,
        genes: Int64[np.ndarray, "gene"] | None = None,
    ) -> Float32[np.ndarray, "query gene"]:
        """Return this shard's part of the sum of weight x (row - mean)^2; the shares add to the weighted variance."""
        ...


def write_expression(
    place: StoragePath,
    stem: str,
    expression: Any,
    form: Form = "float32",
    *,
    rows: Int64[np.ndarray, "row"] | None = None,
) -> dict[str, Any]:
    """Write expression into a folder, and return its description; of `rows` alone, in their order, where given.

    `expression` is dense, a scipy.sparse.csr_array, or an opened Expression; a block of its rows is held at a time.

    Raises:
        ModelError: a value is not finite, or is beyond what float16 holds where the form is float16 or csr16.
    """
    return write_files(place, stem, expression, form, rows=rows)


def open_expression(place: StoragePath, described: Mapping[str, Any]) -> ExpressionRows:
    """Map a shard's expression by its description, each file after checking its sha256.

    Raises:
        ArtifactError: a file is not the one that was described; the message names it.
    """
    if "files" not in described:  # version 1: one float32 file
        return DenseExpression(_mapped(place, described))
    files = {role: _mapped(place, one) for role, one in described["files"].items()}
    rows, genes = described["shape"]
    opened: ExpressionRows
    if described["form"] in {"float32", "float16"}:
        opened = DenseExpression(files["values"])
    else:
        opened = SparseExpression(files["values"], files["columns"], files["starts"], genes)
        _check_sparse(place / described["files"]["columns"]["file"], opened)
    if (opened.form, opened.shape) != (described["form"], (rows, genes)):
        file = place / described["files"]["values"]["file"]
        msg = f"{file} holds expression in form {opened.form}, {opened.shape}; {described['form']}, ({rows}, {genes}) "
        raise ArtifactError(msg + "was described: run `raystp index` again")
    return opened


def in_memory(expression: np.ndarray | sparse.csr_array) -> ExpressionRows:
    """Return expression that is in memory already, as it is: dense float32 or float16, or sparse."""
    if isinstance(expression, np.ndarray):
        kept = expression.dtype in {np.dtype(np.float32), np.dtype(np.float16)}
        return DenseExpression(expression if kept else expression.astype(np.float32))
    columns = expression.indices.astype(np.uint16 if expression.shape[1] < 1 << 16 else np.int32)
    starts = expression.indptr.astype(np.int64)
    return SparseExpression(np.asarray(expression.data, np.float32), columns, starts, int(expression.shape[1]))


def _mapped(place: StoragePath, one: Mapping[str, Any]) -> np.ndarray:
    file, wanted = place / one["file"], one["sha256"]
    with file.local() as path:
        found = artifacts.digest(StoragePath.of(path))
        if found != wanted:
            msg = (
                f"{file} is not the file that its index was written with: sha256 {found[:12]}..., {wanted[:12]}... "
                "was wanted; it is damaged or altered, run `raystp index` again"
            )
            raise ArtifactError(msg)
        values: np.ndarray = np.load(path, mmap_mode="c", allow_pickle=False)
    return np.asarray(values)


def _check_sparse(file: StoragePath, opened: SparseExpression) -> None:
    """Raise where columns or rows point outside: the loops over them do not look."""
    starts, stored = opened.starts, len(opened.values)
    whole = len(starts) and starts[0] == 0 and starts[-1] == stored == len(opened.columns)
    if not whole or (np.diff(starts) < 0).any() or (stored and int(opened.columns.max()) >= opened.genes):
        msg = f"{file} and its values and starts do not make rows of {opened.genes} genes: run `raystp index` again"
        raise ArtifactError(msg)
