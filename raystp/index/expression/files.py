"""Expression to .npy files, block by block: what is written may be larger than memory."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from scipy import sparse

from raystp import artifacts
from raystp.errors import ModelError, some
from raystp.index.expression.forms import Form
from raystp.storage import StoragePath

_BLOCK = 1 << 22  # values that are held at a time, as dense rows
_LARGEST = {"float16": 65_504.0, "csr16": 65_504.0}

Blocks = Callable[[], Iterator[Any]]


def write_files(
    place: StoragePath, stem: str, expression: Any, form: Form, *, rows: np.ndarray | None = None
) -> dict[str, Any]:
    """Write the files of one form and return their description. Raises ModelError for values that do not fit."""
    kept = np.arange(expression.shape[0]) if rows is None else rows
    genes = int(expression.shape[1])
    step = max(1, _BLOCK // max(1, genes))

    def blocks() -> Iterator[Any]:
        for start in range(0, len(kept), step):
            yield _block(expression, kept[start : start + step])

    starts = _starts(blocks, form, stem)
    value = np.dtype(np.float16 if form in _LARGEST else np.float32)
    if form in {"float32", "float16"}:
        file = place / f"{stem}.expression.npy"
        shape: tuple[int, ...] = (len(kept), genes)
        files = {"values": _write(file, value, shape, (_dense(block) for block in blocks()))}
    else:
        column = np.dtype(np.uint16 if genes < 1 << 16 else np.int32)
        named = {role: place / f"{stem}.expression.{role}.npy" for role in ("values", "columns", "starts")}
        stored = (int(starts[-1]),)
        files = {
            "values": _write(named["values"], value, stored, (_sparse(block).data for block in blocks())),
            "columns": _write(named["columns"], column, stored, (_sparse(block).indices for block in blocks())),
            "starts": _write(named["starts"], np.dtype(np.int64), starts.shape, iter([starts])),
        }
    return {"form": form, "shape": [len(kept), genes], "files": files}


def _write(
    place: StoragePath, dtype: np.dtype[Any], shape: tuple[int, ...], parts: Iterator[np.ndarray]
) -> dict[str, str]:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, described)
            for part in parts:
                np.ascontiguousarray(part, dtype).tofile(file)

    place.write_file(write)
    return {"file": place.name, "sha256": artifacts.digest(place)}


def _block(expression: Any, rows: np.ndarray) -> Any:
    """Return some rows, dense or as a csr_array."""
    if isinstance(expression, np.ndarray):
        whole = len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all()
        return expression[rows[0] : rows[-1] + 1] if whole else expression[rows]
    if sparse.issparse(expression):
        return expression[rows]
    return expression.rows(rows)


def _dense(block: Any) -> np.ndarray:
    return block if isinstance(block, np.ndarray) else np.asarray(block.toarray())


def _sparse(block: Any) -> sparse.csr_array:
    """Return a block's values that are not zero, each once, columns rising."""
    found = sparse.csr_array(block, copy=not isinstance(block, np.ndarray))
    found.sum_duplicates()
    found.eliminate_zeros()
    return found


def _starts(blocks: Blocks, form: Form, stem: str) -> Int64[np.ndarray, "starts"]:
    """Return where each row begins among the values that are not zero, after a look at every value."""
    counts, bad, largest = [np.zeros(1, np.int64)], list[str](), 0.0
    for block in blocks():
        dense = block if isinstance(block, np.ndarray) else None
        values = block if dense is not None else block.data
        top = float(np.abs(values).max(initial=0))
        if not np.isfinite(top):
            first = sum(len(one) for one in counts) - 1
            bad += [str(first + row) for row in np.flatnonzero(~np.isfinite(_dense(block)).all(axis=1)).tolist()]
        else:
            largest = max(largest, top)
        counts.append(np.diff(_sparse(block).indptr) if dense is None else np.count_nonzero(dense, axis=1))
    if bad:
        msg = f"the expression for {stem} is not finite in {len(bad)} of its rows ({some(bad)}): leave them out"
        raise ModelError(msg)
    if largest > _LARGEST.get(form, np.inf):
        msg = f"the expression for {stem} goes up to {largest:g}, and form '{form}' holds values to 65,504: "
        raise ModelError(msg + f"{'csr' if form == 'csr16' else 'float32'} would do, or expression in log1p")
    return np.cumsum(np.concatenate(counts), dtype=np.int64)
