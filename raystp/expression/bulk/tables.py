"""The files that a case x gene table may come in, each to the same plain table; nothing is judged here but the form."""

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

TEXT = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
"""Ending -> what stands between two cells; each may be packed as .gz."""


_ENCODING = "utf-8-sig"
"""UTF-8, and what Excel puts in front of it."""


@dataclass(frozen=True)
class BulkTable:
    """A case x gene table as it lies in its file; a cell that is empty is nan."""

    cases: list[str]
    genes: list[str]
    values: Float64[np.ndarray, "case gene"]


def read_table(place: StoragePath, case: str) -> BulkTable:
    """Read a table of any of the three kinds, known by its file's ending.

    Raises SectionError for another ending, a file that cannot be read, no column `case`, a row whose case is empty, and
    a cell that is no number.
    """
    name = place.name.removesuffix(".gz")
    if name.endswith(".h5ad"):
        return _of_h5ad(place)
    ending = next((ending for ending in TEXT if name.endswith(ending)), None)
    if ending is None and not name.endswith(".parquet"):
        msg = f"{place} is no table of cases that is known: wanted is .parquet, .h5ad, or {', '.join(TEXT)} (or .gz)"
        raise SectionError(msg)
    try:
        columns = _of_parquet(place) if ending is None else _of_text(place, TEXT[ending], case)
    except (pa.ArrowException, ValueError, OSError, EOFError, zlib.error) as error:
        msg = f"{place} cannot be read as a table ({type(error).__name__}: {error}): a damaged file, or another kind"
        raise SectionError(msg) from None
    return _of_columns(place, case, columns)


def _of_h5ad(place: StoragePath) -> BulkTable:
    found = read_h5ad(place)
    if found.X is None:
        msg = f"{place} has no X: the values of cases x genes are wanted there"
        raise SectionError(msg)
    values = found.X.toarray() if sp.issparse(found.X) else np.asarray(found.X)
    cases, genes = ([str(name) for name in axis] for axis in (found.obs_names, found.var_names))
    return BulkTable(cases, genes, values.astype(np.float64))


def _of_parquet(place: StoragePath) -> list[tuple[str, pd.Series]]:
    with place.local() as path:
        table = pq.ParquetFile(path).read()  # columns by number: a name may occur twice
    return [(str(name), column.to_pandas()) for name, column in zip(table.column_names, table.columns, strict=True)]


def _of_text(place: StoragePath, separator: str, case: str) -> list[tuple[str, pd.Series]]:
    packed: Literal["gzip"] | None = "gzip" if place.name.endswith(".gz") else None
    with place.local() as path:
        # pandas would rename a gene that occurs twice, so the header is read as a row.
        header = pd.read_csv(
            path, sep=separator, header=None, nrows=1, dtype=str, encoding=_ENCODING, compression=packed
        )
        names = [str(name).strip() for name in header.iloc[0]]
        texts = {number: str for number, name in enumerate(names) if name == case}  # 007 is no number
        body = pd.read_csv(
            path,
            sep=separator,
            header=None,
            skiprows=1,
            dtype=texts,
            index_col=False,
            encoding=_ENCODING,
            compression=packed,
            low_memory=False,
        )
    if body.shape[1] != len(names):
        msg = f"its header names {len(names)} columns, its rows hold {body.shape[1]}"
        raise ValueError(msg)
    return [(name, body.iloc[:, number]) for number, name in enumerate(names)]


def _of_columns(place: StoragePath, case: str, columns: list[tuple[str, pd.Series]]) -> BulkTable:
    found = [values for name, values in columns if name == case]
    if len(found) != 1:
        seen = some([name for name, _ in columns])
        msg = f"{place} has {len(found)} columns '{case}', one is wanted that names the cases; its columns are {seen}"
        raise SectionError(msg)
    if found[0].isna().any():
        msg = f"{place} has {int(found[0].isna().sum())} rows whose '{case}' is empty: name the case of each row"
        raise SectionError(msg)
    genes = [(name, _numbers(place, name, cells)) for name, cells in columns if name != case]
    values = np.column_stack([column for _, column in genes]) if genes else np.zeros((len(found[0]), 0))
    return BulkTable([str(name).strip() for name in found[0]], [name for name, _ in genes], values)


def _numbers(place: StoragePath, name: str, cells: pd.Series) -> Float64[np.ndarray, "case"]:
    numbers = pd.to_numeric(cells, errors="coerce")
    words = [str(word) for word in cells[numbers.isna() & cells.notna()]]
    if words:
        msg = f"{place} has {len(words)} values of '{name}' that are no numbers: {some(words)}"
        raise SectionError(msg)
    return numbers.to_numpy(dtype=np.float64)
