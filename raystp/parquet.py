"""Read a parquet table of somebody else: what it unpacks to is bounded before it is in memory.

A parquet file of some kB can hold 10^9 rows, or one long text that each row repeats. Rows and values are stated in its
footer, which is read first. Texts are read as indices and a dictionary, so that their lengths can be added up before
they are repeated. A cell of a list has any number of values, which are counted in the headers of its pages. A table may
unpack to as much as an HDF5 file may declare (`raystp.hdf5`).
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raystp.hdf5 import max_declared_bytes
from raystp.parquet_pages import values_of_pages

Values = TypeVar("Values", pa.Array, pa.ChunkedArray)

CELL_BYTES = 8
"""Bytes of a cell that count against the size of the file at least, whatever its type."""
LEVEL_BYTES = 4
"""Of a value in a list, where it begins and how deep it is, while it is read."""

Columns = Callable[[pa.Schema], list[str] | None]
"""Choose the columns that are read; None for all."""


def read_foreign_parquet(
    source: pa.NativeFile, size: int, choose: Columns = lambda _: None, *, most: int | None = None
) -> pa.Table:
    """Return columns of a table in a file of `size` bytes. A column that occurs twice is read twice.

    `most` bounds the bytes further, for a table that is known to be small.

    Raises ValueError, or an error of pyarrow, for a file that is damaged, unpacks to too much, has text that is not
    UTF-8, or text with a delta encoding, whose size is not known before it is read.
    """
    metadata = pq.read_metadata(source)
    limit = min(max_declared_bytes(size), max_declared_bytes(size) if most is None else most)
    # Not `column(n)` of a row group: a damaged footer makes it end the process (pyarrow 25).
    stored_bytes = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    _check(max(metadata.num_rows * metadata.num_columns * CELL_BYTES, stored_bytes), size, limit)
    schema = metadata.schema.to_arrow_schema()
    wanted = choose(schema)
    chosen = [one for one in schema if wanted is None or one.name in wanted]
    _check(metadata.num_rows * sum(_cell_bytes(one.type) for one in chosen), size, limit)
    nested = {one.name: _value_bytes(one) for one in chosen if pa.types.is_nested(one.type)}
    if nested:
        _check(values_of_pages(source, nested) * (max(nested.values()) + LEVEL_BYTES), size, limit)
    with plain_texts():
        with pq.ParquetFile(source, metadata=metadata, pre_buffer=False, read_dictionary=texts_of(metadata)) as file:
            table = file.read(wanted, use_threads=False)
        _check(sum(text_bytes(chunk) for column in table.columns for chunk in column.chunks), size, limit)
    decoded = pa.Table.from_arrays([decode(column) for column in table.columns], names=table.column_names)
    decoded.validate(full=True)
    return decoded


def texts_of(metadata: pq.FileMetaData) -> list[str]:
    """Return the columns of text or bytes, to be read as indices and a dictionary."""
    stored = {metadata.schema.column(number).path for number in range(metadata.num_columns)}
    return sorted({one.name for one in metadata.schema.to_arrow_schema() if is_text(one.type)} & stored)


@contextlib.contextmanager
def plain_texts() -> Iterator[None]:
    """Turn pyarrow's errors for columns of `texts_of` into ValueErrors: a delta encoding, an index without its text."""
    try:
        yield
    except OSError as error:
        if "DeltaByteArray" in str(error) or "DeltaLengthByteArray" in str(error):
            msg = "it has text with a delta encoding: save it with the encoding PLAIN or DICTIONARY"
            raise ValueError(msg) from None
        raise
    except IndexError as error:
        raise ValueError(str(error)) from None


def _check(unpacked: int, size: int, limit: int) -> None:
    if unpacked > limit:
        msg = f"it unpacks to {unpacked:,} bytes from {size:,}: a damaged or hostile file; it was not read"
        raise ValueError(msg)


def _cell_bytes(kind: pa.DataType) -> int:
    """Return the bytes of a cell of this type; `CELL_BYTES` for a text or a list, whose own bytes are added up."""
    try:
        return max(CELL_BYTES, int(kind.byte_width))
    except (ValueError, AttributeError):  # of a type without a fixed width
        return CELL_BYTES


def _value_bytes(field: pa.Field) -> int:
    """Return the bytes of the widest value in a column of lists or structs; raises ValueError for text in one."""
    kinds, widest = [field.type], CELL_BYTES
    while kinds:
        kind = kinds.pop()
        if is_text(kind):
            msg = f"the column {field.name!r} is of type {field.type}, which has text in a list or struct: leave it out"
            raise ValueError(msg)
        if pa.types.is_nested(kind):
            kinds += [kind.field(number).type for number in range(kind.num_fields)]
        else:
            widest = max(widest, _cell_bytes(kind))
    return widest


def is_text(kind: pa.DataType) -> bool:
    """Return whether cells of this type are texts or bytes of any length."""
    if isinstance(kind, pa.BaseExtensionType):
        return is_text(kind.storage_type)
    tests = (
        pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view,
        pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view,
    )  # fmt: skip
    return any(test(kind) for test in tests)


def text_bytes(values: pa.Array) -> int:
    """Return the bytes of texts once they are repeated; 0 for an array of something else."""
    if not _is_coded(values.type) or not is_text(values.type.value_type):
        return 0
    return int(pc.sum(pc.binary_length(values.dictionary).cast(pa.int64()).take(values.indices)).as_py() or 0)


def decode(values: Values) -> Values:
    """Return an array or a column with its texts repeated; another one as it is."""
    return values.cast(values.type.value_type) if _is_coded(values.type) else values


def _is_coded(kind: pa.DataType) -> bool:
    return bool(pa.types.is_dictionary(kind))
