"""Read a table of cases x genes from parquet, CSV/TSV or h5ad. Only the format is checked here, not the values."""

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp
from jaxtyping import Float64

from raystp.errors import SectionError, some
from raystp.expression.schema import read_h5ad
from raystp.storage import StoragePath

SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
"""Suffix -> separator of a text table; each may be compressed as .gz."""

_ENCODING = "utf-8-sig"
"""UTF-8, with or without the byte order mark that Excel writes."""


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
    suffix = next((suffix for suffix in SEPARATORS if name.endswith(suffix)), None)
    if suffix is None and not name.endswith(".parquet"):
        msg = f"{path} is not a table of cases: expected .parquet, .h5ad, or {', '.join(SEPARATORS)} (also .gz)"
        raise SectionError(msg)
    try:
        columns = _read_parquet(path) if suffix is None else _read_text(path, SEPARATORS[suffix], case)
    except (pa.ArrowException, ValueError, OSError, EOFError, zlib.error) as error:
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
    values = adata.X.toarray() if sp.issparse(adata.X) else np.asarray(adata.X)
    cases, genes = ([str(name) for name in axis] for axis in (adata.obs_names, adata.var_names))
    return BulkTable(cases, genes, values.astype(np.float64))


def _read_parquet(path: StoragePath) -> list[tuple[str, pd.Series]]:
    with path.local() as local:
        table = pq.ParquetFile(local).read()  # columns by number: a name may occur twice
    return [(str(name), column.to_pandas()) for name, column in zip(table.column_names, table.columns, strict=True)]


def _read_text(path: StoragePath, separator: str, case: str) -> list[tuple[str, pd.Series]]:
    compression: Literal["gzip"] | None = "gzip" if path.name.endswith(".gz") else None
    with path.local() as local:
        # pandas renames duplicate columns, so the header is read as a row.
        header = pd.read_csv(
            local, sep=separator, header=None, nrows=1, dtype=str, encoding=_ENCODING, compression=compression
        )
        names = [str(name).strip() for name in header.iloc[0]]
        text_columns = {number: str for number, name in enumerate(names) if name == case}  # a case may be called 007
        body = pd.read_csv(
            local,
            sep=separator,
            header=None,
            skiprows=1,
            dtype=text_columns,
            index_col=False,
            encoding=_ENCODING,
            compression=compression,
            low_memory=False,
        )
    if body.shape[1] != len(names):
        msg = f"its header has {len(names)} columns, its rows have {body.shape[1]}"
        raise ValueError(msg)
    return [(name, body.iloc[:, number]) for number, name in enumerate(names)]


def _from_columns(path: StoragePath, case: str, columns: list[tuple[str, pd.Series]]) -> BulkTable:
    found = [values for name, values in columns if name == case]
    if len(found) != 1:
        names = some([name for name, _ in columns])
        msg = f"{path} has {len(found)} columns '{case}', expected one with the names of the cases; it has {names}"
        raise SectionError(msg)
    if found[0].isna().any():
        msg = f"{path} has {int(found[0].isna().sum())} rows whose '{case}' is empty: give the case of each row"
        raise SectionError(msg)
    genes = [(name, _numbers(path, name, cells)) for name, cells in columns if name != case]
    values = np.column_stack([column for _, column in genes]) if genes else np.zeros((len(found[0]), 0))
    return BulkTable([str(name).strip() for name in found[0]], [name for name, _ in genes], values)


def _numbers(path: StoragePath, name: str, cells: pd.Series) -> Float64[np.ndarray, "case"]:
    numbers = pd.to_numeric(cells, errors="coerce")
    words = [str(word) for word in cells[numbers.isna() & cells.notna()]]
    if words:
        msg = f"{path} has {len(words)} values of '{name}' that are not numbers: {some(words)}"
        raise SectionError(msg)
    return numbers.to_numpy(dtype=np.float64)
