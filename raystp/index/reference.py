"""The spots that a bank is made of, and the table that remembers them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from raystp import artifacts, tables
from raystp.errors import ArtifactError, ModelError
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
"""Columns of text beside these (slide, tissue, cohort) make it version 2."""


@dataclass(frozen=True)
class ReferenceRows:
    """The spots that a bank is made of, one row each, in every field in the same order."""

    vectors: Float32[np.ndarray, "row joint"]
    expression: Any
    """Dense (row, gene), or a scipy.sparse.csr_array."""
    genes: list[str]
    sections: list[str]
    spots: list[str]
    patients: list[str]
    more: Mapping[str, list[str]] = field(default_factory=dict)
    """Further columns of text to choose rows by: slide, tissue, cohort."""

    def __post_init__(self) -> None:
        counts = {
            "vectors": len(self.vectors),
            "expression": self.expression.shape[0],
            "sections": len(self.sections),
            "spots": len(self.spots),
            "patients": len(self.patients),
            **{name: len(column) for name, column in self.more.items()},
        }
        if len(set(counts.values())) > 1 or self.expression.shape[1] != len(self.genes):
            msg = f"a reference has one row per spot in every field and one column per gene, seen {counts} rows, "
            raise ModelError(msg + f"{self.expression.shape[1]} columns and {len(self.genes)} genes")

    def rows(self) -> pa.Table:
        """Return the table that says where each row came from."""
        return rows_table(self.vectors, self.sections, self.spots, self.patients, more=self.more)


def rows_table(
    vectors: Float32[np.ndarray, "row joint"],
    sections: Sequence[str],
    spots: Sequence[str],
    patients: Sequence[str],
    *,
    more: Mapping[str, Sequence[str]] | None = None,
) -> pa.Table:
    """Return the table that says where each row came from; `vectors` are as the model gave them."""
    more = more or {}
    schema = _schema(list(more))
    columns = [range(len(spots)), sections, spots, patients, score.lengths(vectors), *more.values()]
    arrays = [pa.array(column, one.type) for column, one in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def numbered(rows: pa.Table) -> pa.Table:
    """Return the table with its rows counted from 0 on."""
    return rows.set_column(0, ROWS.field("row"), pa.array(np.arange(rows.num_rows)))


def open_rows(place: StoragePath, described: Mapping[str, Any], wanted: int) -> pa.Table:
    """Read the table of a bank's rows; raises ArtifactError where it is not the one that was described."""
    file = place / described["file"]
    if artifacts.digest(file) != described["sha256"]:
        msg = f"{file} is not the file that its index was written with; it is damaged or altered: run `raystp index`"
        raise ArtifactError(msg + " again")
    found = file.read_schema()
    tables.check(found, _schema([name for name in found.names if name not in ROWS.names]), str(file))
    rows = file.read_table()
    if rows.num_rows != wanted:
        msg = f"{file} names {rows.num_rows} rows, the shards hold {wanted}: run `raystp index` again"
        raise ArtifactError(msg)
    return rows


def _schema(more: list[str]) -> pa.Schema:
    if not more:
        return ROWS
    fields = [*ROWS, *(pa.field(name, pa.string(), nullable=False) for name in more)]
    return pa.schema(fields, metadata={tables.NAME: b"rows", tables.VERSION: b"2"})
