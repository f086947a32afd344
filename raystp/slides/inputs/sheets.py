"""Tables of a user in any of four formats, as text: CSV and the like, Excel workbooks (.xlsx), parquet.

A workbook needs openpyxl, which is an extra (`pip install 'raystp[xlsx]'`). Its first sheet with cells is read; a cell
with a formula has the value that was last computed. What a file states of its size is checked before it is read.
"""

import importlib
import math
import zipfile
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raystp.errors import LONGEST, ConfigError, RaystpError, some
from raystp.parquet import read_foreign_parquet
from raystp.storage import StoragePath
from raystp.storage.text_files import TextTable, as_table, read_text_table, trimmed

MAX_BYTES = 1 << 30
"""Bytes of a workbook or parquet file at most, unpacked."""

MAX_CELLS = 10_000_000
"""Cells of a sheet at most: 10^5 slides with 100 columns."""

_PARQUET, _ZIP = b"PAR1", b"PK\x03\x04"


def read_sheet(path: StoragePath, *, known: Collection[str] = ()) -> TextTable:
    """Read a table with a header, by its first bytes; see `read_text_table`.

    Raises ConfigError for a file that is too large or damaged, and for a workbook without openpyxl.
    """
    with path.open() as file:
        head = file.read(4)
    if head == _PARQUET:
        return _read_parquet(path, known)
    if head == _ZIP:
        return _read_workbook(path)
    return read_text_table(path, known=known)


def _read_parquet(path: StoragePath, known: Collection[str]) -> TextTable:
    """Read a parquet file; columns of lists, structs or bytes are not read."""
    try:
        with path.open() as opened:
            metadata = pq.read_metadata(opened)
            groups = range(metadata.num_row_groups)
            _check_size(path, sum(metadata.row_group(number).total_byte_size for number in groups))
            schema: pa.Schema = metadata.schema.to_arrow_schema()
            table = read_foreign_parquet(opened, path.size(), _plain_columns, most=MAX_BYTES)
            columns = [column.to_pylist() for column in table.columns]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, pa.ArrowException) as error:
        raise _damaged(path, "parquet file", error) from None
    odd = [name for name in schema.names if name.lower() in known and name not in table.column_names]
    if odd:
        msg = f"{path}: the column {some(odd)} has lists, structs or bytes; a cell of a slide table is text or a number"
        raise ConfigError(msg)
    return _as_text(path, [str(name) for name in table.column_names], zip(*columns, strict=True))


def _plain_columns(schema: pa.Schema) -> list[str]:
    """Return the columns of text and numbers, without those that pandas adds for its index."""
    plain = [one.name for one in schema if not pa.types.is_nested(one.type) and not _is_binary(one.type)]
    return [name for name in plain if not name.startswith("__index_level_")]


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _read_workbook(path: StoragePath) -> TextTable:
    try:
        openpyxl = importlib.import_module("openpyxl")
    except ImportError:
        msg = (
            f"{path} is an Excel workbook (.xlsx) or another ZIP file; workbooks need openpyxl: "
            "pip install 'raystp[xlsx]', or save the sheet as CSV UTF-8"
        )
        raise ConfigError(msg) from None
    try:
        with path.local() as local, local.open("rb") as file, zipfile.ZipFile(file) as archive:
            _check_size(path, sum(one.file_size for one in archive.infolist()))
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            try:
                sheets = [list(_rows_of(sheet, path)) for sheet in book.worksheets]
            finally:
                book.close()
    except RaystpError:  # of the size, or of the store
        raise
    except Exception as error:  # noqa: BLE001 -- a damaged one makes zipfile, its codecs and openpyxl raise almost anything
        raise _damaged(path, "Excel workbook", error) from None
    rows = next((one for one in sheets if any(_cell(cell) for row in one for cell in row)), [])
    header = next((number for number, row in enumerate(rows) if any(_cell(cell) for cell in row)), 0)
    names = [_cell(cell) for cell in rows[header]] if rows else []
    return _as_text(path, names, rows[header + 1 :], first=header + 2)


def _rows_of(sheet: Any, path: StoragePath) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a sheet. One cell at the end of a sheet makes 1.7 x 10^10 empty ones before it."""
    cells = 0
    for row in sheet.iter_rows(values_only=True):
        cells += max(1, len(row))
        if cells > MAX_CELLS:
            msg = f"{path} has a sheet of more than {MAX_CELLS:,} cells, empty ones included: it was not read"
            raise ConfigError(msg)
        yield tuple(row)


def _as_text(path: StoragePath, names: list[str], rows: Iterable[tuple[Any, ...]], first: int = 1) -> TextTable:
    """Return rows of values as a table of text; `first` is the number of the first row."""
    found = []
    for line, row in enumerate(rows, first):
        cells = {number: text for number, cell in enumerate(row) if (text := _cell(cell))}
        found += [(line, cells)] if cells else []
    return as_table(str(path), ",", names, found, error=ConfigError)


def _cell(value: object) -> str:
    """Return a value as the text that a CSV has for it: empty for a missing one, `1` for a whole float."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return trimmed(str(value))


def _check_size(path: StoragePath, size: int) -> None:
    if size > MAX_BYTES:
        msg = f"{path} unpacks to {size >> 20:,} MiB, a table of slides has up to {MAX_BYTES >> 20:,}; it was not read"
        raise ConfigError(msg)


def _damaged(path: StoragePath, kind: str, error: BaseException) -> ConfigError:
    reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:LONGEST]}"
    return ConfigError(f"{path} cannot be read as {kind} ({reason}): save it again, or save it as CSV UTF-8")
