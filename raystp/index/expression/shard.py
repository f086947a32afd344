"""A shard's expression on disk, in four forms, and how it is opened.

    <stem>.expression.npy            float32 or float16: dense rows
    <stem>.expression.values.npy     csr: the values that are not zero (float32; float16 in csr16),
    <stem>.expression.columns.npy         their columns (uint16 for fewer than 65,536 genes, else int32),
    <stem>.expression.starts.npy          and where each row begins (int64)

Files are mapped copy-on-write: changes in memory never reach them.
"""

import numpy as np
from jaxtyping import Int64
from scipy import sparse

from raystp.errors import ArtifactError
from raystp.index import files
from raystp.index.description import ExpressionRecord, Version1Expression
from raystp.index.expression.files import ExpressionSource, write_files
from raystp.index.expression.forms import DenseExpression, ExpressionRows, Form, SparseExpression
from raystp.storage import StoragePath


def write_expression(
    folder: StoragePath,
    stem: str,
    expression: ExpressionSource,
    form: Form = "float32",
    *,
    rows: Int64[np.ndarray, "row"] | None = None,
) -> ExpressionRecord:
    """Write expression into a folder and return its record; with `rows`, those rows only, in their order.

    A block of rows is in memory at a time.

    Raises:
        ModelError: a value is not finite, or exceeds the range of float16 where the form is float16 or csr16.
    """
    return write_files(folder, stem, expression, form, rows=rows)


def open_expression(folder: StoragePath, record: ExpressionRecord | Version1Expression) -> ExpressionRows:
    """Map a shard's expression by its record, after checking each file's sha256.

    Raises:
        ArtifactError: a file differs from its record; the message names it.
    """
    if "files" not in record:  # version 1: one float32 file
        return DenseExpression(files.map_array(folder, record, writable=True))
    arrays = {role: files.map_array(folder, file, writable=True) for role, file in record["files"].items()}
    rows, genes = record["shape"]
    expression: ExpressionRows
    if record["form"] in {"float32", "float16"}:
        expression = DenseExpression(arrays["values"])
    else:
        expression = SparseExpression(arrays["values"], arrays["columns"], arrays["starts"], genes)
        _check_sparse(folder / record["files"]["columns"]["file"], expression)
    if (expression.form, expression.shape) != (record["form"], (rows, genes)):
        file = folder / record["files"]["values"]["file"]
        msg = (
            f"{file} has expression of form {expression.form} and shape {expression.shape}; {record['form']}, "
            f"({rows}, {genes}) was described: run `raystp index` again"
        )
        raise ArtifactError(msg)
    return expression


def in_memory(expression: np.ndarray | sparse.csr_array) -> ExpressionRows:
    """Return expression that is in memory: dense float32 or float16, or sparse."""
    if isinstance(expression, np.ndarray):
        supported = expression.dtype in {np.dtype(np.float32), np.dtype(np.float16)}
        return DenseExpression(expression if supported else expression.astype(np.float32))
    columns = expression.indices.astype(np.uint16 if expression.shape[1] < 1 << 16 else np.int32)
    starts = expression.indptr.astype(np.int64)
    return SparseExpression(np.asarray(expression.data, np.float32), columns, starts, int(expression.shape[1]))


def _check_sparse(file: StoragePath, expression: SparseExpression) -> None:
    """Raise where columns or starts point outside the arrays: the compiled loops do not check."""
    starts, stored = expression.starts, len(expression.values)
    consistent = len(starts) and starts[0] == 0 and starts[-1] == stored == len(expression.columns)
    if not consistent or (np.diff(starts) < 0).any() or (stored and int(expression.columns.max()) >= expression.genes):
        msg = f"{file} and its values and starts are not rows of {expression.genes} genes: run `raystp index` again"
        raise ArtifactError(msg)
