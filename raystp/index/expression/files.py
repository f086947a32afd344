"""Write expression to .npy files block by block, so that it may be larger than memory."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Int64
from numpy.typing import DTypeLike
from scipy import sparse

from raystp.digests import digest
from raystp.errors import ModelError, some
from raystp.index.description import ExpressionRecord, FileRecord
from raystp.index.expression.forms import ExpressionRows, Form
from raystp.storage import StoragePath

ExpressionSource: TypeAlias = np.ndarray | sparse.csr_array | ExpressionRows
"""Expression to write: a dense array, a scipy.sparse.csr_array, or the open expression of a shard."""

_BLOCK_VALUES = 1 << 22
"""Values in memory at a time, counted as dense rows."""
_FLOAT16_MAX = 65_504.0
_HALF_FORMS = ("float16", "csr16")

Block: TypeAlias = np.ndarray | sparse.csr_array
Blocks = Callable[[], Iterator[Block]]


def write_files(
    folder: StoragePath, stem: str, expression: ExpressionSource, form: Form, *, rows: np.ndarray | None = None
) -> ExpressionRecord:
    """Write the files of one form and return their record; raise ModelError for values that do not fit."""
    selected = np.arange(expression.shape[0]) if rows is None else rows
    genes = int(expression.shape[1])
    step = max(1, _BLOCK_VALUES // max(1, genes))

    def blocks() -> Iterator[Block]:
        for start in range(0, len(selected), step):
            yield _block(expression, selected[start : start + step])

    starts = _row_starts(blocks, form, stem)
    value = np.float16 if form in _HALF_FORMS else np.float32
    if form in {"float32", "float16"}:
        file, shape = folder / f"{stem}.expression.npy", (len(selected), genes)
        files = {"values": _write_npy(file, value, shape, (_dense(block) for block in blocks()))}
    else:
        column = np.uint16 if genes < 1 << 16 else np.int32
        paths = {role: folder / f"{stem}.expression.{role}.npy" for role in ("values", "columns", "starts")}
        stored = (int(starts[-1]),)
        files = {
            "values": _write_npy(paths["values"], value, stored, (_sparse(block).data for block in blocks())),
            "columns": _write_npy(paths["columns"], column, stored, (_sparse(block).indices for block in blocks())),
            "starts": _write_npy(paths["starts"], np.int64, starts.shape, iter([starts])),
        }
    return {"form": form, "shape": [len(selected), genes], "files": files}


def _write_npy(file: StoragePath, dtype: DTypeLike, shape: tuple[int, ...], blocks: Iterator[np.ndarray]) -> FileRecord:
    def write(path: Path) -> None:
        with path.open("wb") as handle:
            descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
            header = {"descr": descr, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(handle, header)
            for block in blocks:
                np.ascontiguousarray(block, dtype).tofile(handle)

    file.write_file(write)
    return {"file": file.name, "sha256": digest(file)}


def _block(expression: ExpressionSource, rows: np.ndarray) -> Block:
    """Return some rows, dense or as a csr_array."""
    if isinstance(expression, np.ndarray):
        consecutive = len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all()
        return expression[rows[0] : rows[-1] + 1] if consecutive else expression[rows]
    if isinstance(expression, ExpressionRows):
        return expression.rows(rows)
    return expression[rows]


def _dense(block: Block) -> np.ndarray:
    return block if isinstance(block, np.ndarray) else np.asarray(block.toarray())


def _sparse(block: Block) -> sparse.csr_array:
    """Return the values of a block that are not zero, without duplicates, columns rising."""
    values = sparse.csr_array(block, copy=not isinstance(block, np.ndarray))
    values.sum_duplicates()
    values.eliminate_zeros()
    return values


def _row_starts(blocks: Blocks, form: Form, stem: str) -> Int64[np.ndarray, "starts"]:
    """Return where each row begins among the values that are not zero; check that every value is finite and fits."""
    counts, bad, largest = [np.zeros(1, np.int64)], list[str](), 0.0
    for block in blocks():
        values = block if isinstance(block, np.ndarray) else block.data
        block_max = float(np.abs(values).max(initial=0))
        if not np.isfinite(block_max):
            first = sum(len(part) for part in counts) - 1
            bad += [str(first + row) for row in np.flatnonzero(~np.isfinite(_dense(block)).all(axis=1)).tolist()]
        else:
            largest = max(largest, block_max)
        if isinstance(block, np.ndarray):
            counts.append(np.count_nonzero(block, axis=1))
        else:
            counts.append(np.diff(_sparse(block).indptr))
    if bad:
        msg = f"the expression of {stem} is not finite in {len(bad)} rows ({some(bad)}); leave these spots out"
        raise ModelError(msg)
    if form in _HALF_FORMS and largest > _FLOAT16_MAX:
        msg = (
            f"the expression of {stem} has values up to {largest:g}; form '{form}' stores at most {_FLOAT16_MAX:,.0f}: "
            f"use form {'csr' if form == 'csr16' else 'float32'}, or log1p expression"
        )
        raise ModelError(msg)
    return np.cumsum(np.concatenate(counts), dtype=np.int64)
