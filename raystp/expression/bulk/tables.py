"""Read a table of cases x genes from parquet, CSV/TSV or h5ad. Only the format is checked here, not the values."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.sparse as sp
from jaxtyping import Float64

from raystp.errors import SectionError, some
from raystp.expression.bulk.text import read_text_columns
from raystp.expression.schema import read_h5ad
from raystp.expression.sparse import to_dense
from raystp.parquet import read_foreign_parquet
from raystp.storage import StoragePath

TEXT = (".csv", ".tsv", ".txt")
"""Suffixes of a text table, with any separator; each may be compressed as .gz."""


@dataclass(frozen=True)
class BulkTable:
    """A table of cases x genes as read from its file; an empty cell is nan."""

    cases: list[str]
    genes: list[str]
    values: Float64[np.ndarray, "case gene"]


def read_table(path: StoragePath, case: str) -> BulkTable:
    """Read a table of any of the three formats, chosen by suffix; `case` is the column with the names of the cases.

    Raises SectionError for another suffix and a file that cannot be read, for a table without the column `case` or with
    an empty case, and for a cell that is not a number.
    """
    name = path.name.removesuffix(".gz")
    if name.endswith(".h5ad"):
        return _read_h5ad(path)
    is_text = name.endswith(TEXT)
    if not is_text and not name.endswith(".parquet"):
        msg = f"{path} is not a table of cases: expected .parquet, .h5ad, or {', '.join(TEXT)} (also .gz)"
        raise SectionError(msg)
    try:
        columns = read_text_columns(path, case) if is_text else _read_parquet(path)
    except (pa.ArrowException, ValueError, OSError) as error:
        msg = (
            f"{path} cannot be read as a table ({type(error).__name__}: {error}): "
            "the file is damaged, or its suffix is wrong"
        )
        raise SectionError(msg) from None
    return _from_columns(path, case, columns)


def _read_h5ad(path: StoragePath) -> BulkTable:
    adata = read_h5ad(path)
    if adata.X is None:
        msg = f"{path} has no X: expected the values of cases x genes there"
        raise SectionError(msg)
    try:
        values = np.asarray(to_dense(adata.X) if sp.issparse(adata.X) else adata.X, np.float64)
    except (ValueError, TypeError) as error:
        msg = f"{path} has an X that is not read: {error}"
        raise SectionError(msg) from None
    cases, genes = ([str(name) for name in axis] for axis in (adata.obs_names, adata.var_names))
    return BulkTable(cases, genes, values)


def _read_parquet(path: StoragePath) -> list[tuple[str, pd.Series]]:
    size = path.size()
    with path.open() as opened:
        table = read_foreign_parquet(opened, size)  # columns by number: a name may occur twice
    return [(str(name), column.to_pandas()) for name, column in zip(table.column_names, table.columns, strict=True)]


def _from_columns(path: StoragePath, case: str, columns: list[tuple[str, pd.Series]]) -> BulkTable:
    found = [values for name, values in columns if name == case]
    if len(found) != 1:
        names = some([name for name, _ in columns])
        msg = f"{path} has {len(found)} columns '{case}', expected one with the names of the cases; it has {names}"
        raise SectionError(msg)
    empty = int((found[0].isna() | (found[0] == "")).sum())
    if empty:
        msg = f"{path} has {empty} rows whose '{case}' is empty: give the case of each row"
        raise SectionError(msg)
    cases = [str(name).strip() for name in found[0]]
    broken = [name for name in cases if "\n" in name]
    if broken:
        msg = f"{path}: case {broken[0]!r} has a line break: is a quote missing?"
        raise SectionError(msg)
    if any(not name for name, _ in columns):
        msg = f"{path}: {sum(not name for name, _ in columns)} column without a name has values; name it, or remove it"
        raise SectionError(msg)
    genes = [(name, _numbers(path, name, cells)) for name, cells in columns if name != case]
    values = np.column_stack([column for _, column in genes]) if genes else np.zeros((len(found[0]), 0))
    return BulkTable(cases, [name for name, _ in genes], values)


def _numbers(path: StoragePath, name: str, cells: pd.Series) -> Float64[np.ndarray, "case"]:
    numbers = pd.to_numeric(cells, errors="coerce")
    is_word = numbers.isna() | (numbers.dtype.kind == "b")  # True is a word, not 1
    words = [str(word) for word in cells[is_word & cells.notna()]]
    if words:
        msg = f"{path} has {len(words)} values of '{name}' that are not numbers: {some(words)}"
        raise SectionError(msg)
    return numbers.to_numpy(dtype=np.float64)
