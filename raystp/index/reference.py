"""The reference spots of an index, the table of where each row came from, and the row ranges of the shards."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from jaxtyping import Float32
from scipy import sparse

from raystp import tables
from raystp.errors import ArtifactError, ModelError
from raystp.index import files
from raystp.index.description import FileRecord
from raystp.index.search import score
from raystp.storage import StoragePath

ROWS_FILE = "rows.parquet"
ROWS = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # 0..n-1 over all shards
        pa.field("section", pa.string(), nullable=False),
        pa.field("spot", pa.string(), nullable=False),
        pa.field("patient", pa.string(), nullable=False),
        pa.field("length", pa.float64(), nullable=False),  # of the vector as the model gave it
    ],
    metadata={tables.NAME: b"rows", tables.VERSION: b"1"},
)
"""Schema of version 1. Version 2 has further text columns (slide, tissue, cohort)."""


@dataclass(frozen=True)
class ReferenceRows:
    """The reference spots of an index, one row each; every field has the same order."""

    vectors: Float32[np.ndarray, "row joint"]
    expression: np.ndarray | sparse.csr_array
    """(row, gene)."""
    genes: list[str]
    sections: list[str]
    spots: list[str]
    patients: list[str]
    columns: Mapping[str, list[str]] = field(default_factory=dict)
    """Further text columns by which rows can be selected: slide, tissue, cohort."""
    unmeasured: Mapping[str, list[int]] = field(default_factory=dict)
    """Section -> the genes (columns) that it has not measured; its expression is 0 there."""

    def __post_init__(self) -> None:
        counts = {
            "vectors": len(self.vectors),
            "expression": self.expression.shape[0],
            "sections": len(self.sections),
            "spots": len(self.spots),
            "patients": len(self.patients),
            **{name: len(column) for name, column in self.columns.items()},
        }
        if len(set(counts.values())) > 1 or self.expression.shape[1] != len(self.genes):
            msg = (
                f"a reference needs one row per spot in every field and one column per gene; it has {counts} rows, "
                f"{self.expression.shape[1]} columns and {len(self.genes)} genes"
            )
            raise ModelError(msg)

    def rows(self) -> pa.Table:
        """Return the table of where each row came from."""
        return rows_table(self.vectors, self.sections, self.spots, self.patients, columns=self.columns)


def rows_table(
    vectors: Float32[np.ndarray, "row joint"],
    sections: Sequence[str],
    spots: Sequence[str],
    patients: Sequence[str],
    *,
    columns: Mapping[str, Sequence[str]] | None = None,
) -> pa.Table:
    """Return the table of where each row came from; `vectors` are as the model gave them."""
    columns = columns or {}
    schema = _schema(list(columns))
    values = [range(len(spots)), sections, spots, patients, score.lengths(vectors), *columns.values()]
    arrays = [pa.array(column, field.type) for column, field in zip(values, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def numbered(rows: pa.Table) -> pa.Table:
    """Return the table with its rows numbered from 0."""
    return rows.set_column(0, ROWS.field("row"), pa.array(np.arange(rows.num_rows)))


def read_rows(folder: StoragePath, record: FileRecord, expected: int) -> pa.Table:
    """Read the table of an index's rows; raise ArtifactError where its sha256 or its number of rows differs."""
    files.check(folder, record)
    file = folder / record["file"]
    schema = file.read_schema()
    tables.check(schema, _schema([name for name in schema.names if name not in ROWS.names]), str(file))
    rows = file.read_table()
    if rows.num_rows != expected:
        msg = f"{file} has {rows.num_rows} rows, the shards have {expected}; run `raystp index` again"
        raise ArtifactError(msg)
    return rows


def shard_ranges(rows: int, shards: int) -> list[tuple[int, int]]:
    """Return `shards` consecutive row ranges (first, end) whose sizes differ by at most one, larger first.

    Raises ModelError where a shard would be empty. Shards pay from about 100,000 rows; below, one shard is faster.
    """
    if not 1 <= shards <= rows:
        msg = f"{rows} rows cannot be divided into {shards} shards; use 1 to {rows} shards"
        raise ModelError(msg)
    size, larger = divmod(rows, shards)
    starts = [shard * size + min(shard, larger) for shard in range(shards + 1)]
    return list(itertools.pairwise(starts))


def shard_ranges_by_bytes(rows: int, row_bytes: int, max_bytes: int) -> list[tuple[int, int]]:
    """Return the fewest ranges, as `shard_ranges` makes them, of at most `max_bytes` each.

    A row's bytes are those of its vector (4 per dimension; about as much again in lists of float32, half in float16)
    and of its expression. Raises ModelError where one row exceeds `max_bytes`.
    """
    if max_bytes < row_bytes:
        msg = f"a row has {row_bytes:,} bytes, more than the {max_bytes:,} of a shard; allow at least {row_bytes:,}"
        raise ModelError(msg)
    return shard_ranges(rows, -(-rows // (max_bytes // row_bytes)))


def _schema(columns: list[str]) -> pa.Schema:
    if not columns:
        return ROWS
    fields = [*ROWS, *(pa.field(name, pa.string(), nullable=False) for name in columns)]
    return pa.schema(fields, metadata={tables.NAME: b"rows", tables.VERSION: b"2"})
