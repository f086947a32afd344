"""The spots that a bank is made of, and the table that remembers them."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from raystp import tables
from raystp.errors import ModelError
from raystp.index import score

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


@dataclass(frozen=True)
class Reference:
    """The spots that a bank is made of, one row each, in every field in the same order."""

    vectors: Float32[np.ndarray, "row joint"]
    expression: Float32[np.ndarray, "row gene"]
    genes: list[str]
    sections: list[str]
    spots: list[str]
    patients: list[str]

    def __post_init__(self) -> None:
        counts = {
            "vectors": len(self.vectors),
            "expression": len(self.expression),
            "sections": len(self.sections),
            "spots": len(self.spots),
            "patients": len(self.patients),
        }
        if len(set(counts.values())) > 1 or self.expression.shape[1] != len(self.genes):
            msg = f"a reference has one row per spot in every field and one column per gene, seen {counts} rows, "
            raise ModelError(msg + f"{self.expression.shape[1]} columns and {len(self.genes)} genes")

    def rows(self) -> pa.Table:
        """Return the table that says where each row came from, in the schema `ROWS`."""
        columns = [range(len(self.spots)), self.sections, self.spots, self.patients, score.lengths(self.vectors)]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, ROWS, strict=True)]
        return pa.Table.from_arrays(arrays, schema=ROWS)
