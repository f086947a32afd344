"""Columns of large parquet tables, read in batches: a table of 10^8 rows is never in memory at once.

Texts are read as indices and a dictionary, and their lengths are added up before they are repeated (`raystp.parquet`).
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from raystp.errors import RaystpError, SectionError
from raystp.hdf5 import ALLOWANCE, max_declared_bytes
from raystp.parquet import CELL_BYTES, decode, is_text, plain_texts, text_bytes, texts_of
from raystp.storage import StoragePath

ROWS = 1 << 20
"""Rows of a batch."""
MAX_TEXT = ALLOWANCE
"""Bytes of the texts of a batch: 1 kB a row."""


@dataclass(frozen=True)
class Columns:
    """An open parquet table."""

    names: Mapping[str, str]
    """Name in lower case -> name in the file; a stored index has the name of its only column, `barcode`."""
    rows: int
    size: int
    """Of the file, in bytes."""
    file: pq.ParquetFile
    where: str
    as_dictionary: str | None = None
    """Column that is left as a dictionary of its texts."""

    def batches(self, wanted: tuple[str, ...]) -> Iterator[dict[str, pa.Array]]:
        """Yield the values of these columns, `ROWS` rows at a time.

        Raises ValueError for empty cells, lists, and texts of more than `MAX_TEXT` bytes in a batch, or of more in all
        than a file of this size may declare.
        """
        stored, texts = {name: self.names[name] for name in wanted}, 0
        for name, own in stored.items():
            _check_kind(name, self.file.schema_arrow.field(own).type)
        parts = self.file.iter_batches(ROWS, columns=list(stored.values()), use_threads=False)
        with plain_texts():
            for batch in parts:
                found = {name: batch.column(batch.schema.names.index(own)) for name, own in stored.items()}
                texts += self._check(found, texts)
                yield {name: one if name == self.as_dictionary else decode(one) for name, one in found.items()}

    def _check(self, found: dict[str, pa.Array], before: int) -> int:
        """Return the bytes of a batch's texts once they are repeated; `before` is that of the batches before it."""
        for name, values in found.items():
            if values.null_count:
                msg = f"{self.where} has {values.null_count} empty cells in the column {name!r}"
                raise ValueError(msg)
        texts = sum(text_bytes(values) for name, values in found.items() if name != self.as_dictionary)
        if texts > MAX_TEXT or before + texts > max_declared_bytes(self.size):
            msg = f"it unpacks to over {texts:,} bytes of text from {self.size:,}: a damaged or hostile file; not read"
            raise ValueError(msg)
        return texts


def _check_kind(name: str, kind: pa.DataType) -> None:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_number = pa.types.is_primitive(plain) or pa.types.is_decimal(plain) or pa.types.is_null(plain)  # without rows
    if not (is_text(plain) or is_number):
        msg = f"the column {name!r} is of type {kind}, expected text or numbers"
        raise ValueError(msg)


@contextlib.contextmanager
def open_columns(path: StoragePath, origin: str, what: str, *, as_dictionary: str | None = None) -> Iterator[Columns]:
    """Open a parquet table; a column of texts may be left as a dictionary.

    Raises SectionError for another file, one that declares more than it can hold, and for a ValueError of the block.
    """
    size = path.size()
    try:
        with path.open() as opened, _opened(opened) as file:
            rows, names = int(file.metadata.num_rows), file.schema_arrow.names
            declared = rows * len(names) * CELL_BYTES
            if declared > max_declared_bytes(size):
                msg = f"it declares {rows} rows in a file of {size} bytes: a damaged or hostile file; it was not read"
                raise ValueError(msg)
            known = {"barcode" if name.startswith("__index_level") else name.casefold(): name for name in names}
            yield Columns(known, rows, size, file, str(path), as_dictionary)
    except RaystpError:
        raise
    except (ValueError, OSError, pa.ArrowException) as error:
        msg = f"{origin}: {path} is not {what}: {str(error).partition(chr(10))[0]}"
        raise SectionError(msg) from None


def _opened(source: pa.NativeFile) -> pq.ParquetFile:
    metadata = pq.read_metadata(source)
    return pq.ParquetFile(source, metadata=metadata, pre_buffer=False, read_dictionary=texts_of(metadata))
