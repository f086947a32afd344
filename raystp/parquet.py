"""Read a parquet table of somebody else: what it unpacks to is bounded before it is in memory.

A parquet file of some kB can hold 10^9 rows, or one long text that each row repeats. Rows and values are stated in its
footer, which is read first. Texts are read as indices and a dictionary, so that their lengths can be added up before
they are repeated. A table may unpack to as much as an HDF5 file may declare (`raystp.hdf5`).
"""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raystp.hdf5 import max_declared_bytes

CELL_BYTES = 8
"""Bytes of a cell that count against the size of the file, whatever its type."""

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
    stored = {metadata.schema.column(number).path for number in range(metadata.num_columns)}
    schema = metadata.schema.to_arrow_schema()
    texts = sorted({one.name for one in schema if _is_text(one.type)} & stored)
    with pq.ParquetFile(source, metadata=metadata, pre_buffer=False, read_dictionary=texts) as file:
        try:
            table = file.read(choose(schema), use_threads=False)
        except OSError as error:
            if "DeltaByteArray" in str(error) or "DeltaLengthByteArray" in str(error):
                msg = "it has text with a delta encoding: save it with the encoding PLAIN or DICTIONARY"
                raise ValueError(msg) from None
            raise
    try:
        _check(sum(_text_bytes(column) for column in table.columns), size, limit)
    except IndexError as error:  # of pyarrow: an index beyond its dictionary
        raise ValueError(str(error)) from None
    plain = [column.cast(column.type.value_type) if _is_coded(column.type) else column for column in table.columns]
    decoded = pa.Table.from_arrays(plain, names=table.column_names)
    decoded.validate(full=True)
    return decoded


def _check(unpacked: int, size: int, limit: int) -> None:
    if unpacked > limit:
        msg = f"it unpacks to {unpacked:,} bytes from {size:,}: a damaged or hostile file; it was not read"
        raise ValueError(msg)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_string(kind))


def _is_coded(kind: pa.DataType) -> bool:
    return bool(pa.types.is_dictionary(kind))


def _text_bytes(column: pa.ChunkedArray) -> int:
    """Return the bytes of a column of texts once they are repeated; 0 for another column."""
    if not _is_coded(column.type) or not _is_text(column.type.value_type):
        return 0
    return sum(
        pc.sum(pc.binary_length(chunk.dictionary).cast(pa.int64()).take(chunk.indices)).as_py() or 0
        for chunk in column.chunks
    )
