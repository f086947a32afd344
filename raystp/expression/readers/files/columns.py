"""Columns of large parquet tables, read in batches: a table of 10^8 rows is never in memory at once."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from raystp.errors import RaystpError, SectionError
from raystp.hdf5 import max_declared_bytes
from raystp.storage import StoragePath

ROWS = 1 << 20
"""Rows of a batch."""
BYTES_OF_CELL = 8
"""Least bytes of a cell that counts against the size of the file."""


@dataclass(frozen=True)
class Columns:
    """An open parquet table."""

    names: Mapping[str, str]
    """Name in lower case -> name in the file; a stored index has the name of its only column, `barcode`."""
    rows: int
    file: pq.ParquetFile
    where: str

    def batches(self, wanted: tuple[str, ...]) -> Iterator[dict[str, pa.Array]]:
        """Yield the values of these columns, `ROWS` rows at a time."""
        stored = {name: self.names[name] for name in wanted}
        for batch in self.file.iter_batches(ROWS, columns=list(stored.values()), use_threads=False):
            found: dict[str, pa.Array] = {
                name: batch.column(batch.schema.names.index(own)) for name, own in stored.items()
            }
            for name, values in found.items():
                if values.null_count:
                    msg = f"{self.where} has {values.null_count} empty cells in the column {name!r}"
                    raise ValueError(msg)
            yield found


@contextlib.contextmanager
def open_columns(path: StoragePath, origin: str, what: str, *, as_dictionary: str | None = None) -> Iterator[Columns]:
    """Open a parquet table; a column may be read as a dictionary of its texts.

    Raises SectionError for another file, one that declares more than it can hold, and for a ValueError of the block.
    """
    size = path.size()
    try:
        with path.open() as opened, _opened(opened, as_dictionary) as file:
            rows, names = int(file.metadata.num_rows), file.schema_arrow.names
            declared = rows * len(names) * BYTES_OF_CELL
            if declared > max_declared_bytes(size):
                msg = f"it declares {rows} rows in a file of {size} bytes: a damaged or hostile file; it was not read"
                raise ValueError(msg)
            known = {"barcode" if name.startswith("__index_level") else name.casefold(): name for name in names}
            yield Columns(known, rows, file, str(path))
    except RaystpError:
        raise
    except (ValueError, OSError, pa.ArrowException) as error:
        msg = f"{origin}: {path} is not {what}: {str(error).partition(chr(10))[0]}"
        raise SectionError(msg) from None


def _opened(source: pa.NativeFile, as_dictionary: str | None) -> pq.ParquetFile:
    """Open a file; pyarrow has a KeyError for a dictionary of a column that is not there."""
    metadata = pq.read_metadata(source)
    known = [as_dictionary] if as_dictionary in metadata.schema.names else None
    return pq.ParquetFile(source, metadata=metadata, pre_buffer=False, read_dictionary=known)
