"""What is stored of an encoder: tables of vectors and of spatial tokens, a file of each per unit, and a commit record.

The files of a unit are written before its commit record, each atomically and only if it is absent. A unit without a
record is computed again; the files that it has are kept.
"""

import hashlib
import io
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from raystp import tables
from raystp.cluster.streams.units import Encoded, WorkUnit
from raystp.encoders.encoder import Encoder, Precision, stored_precision
from raystp.encoders.features.options import OWN_ROW, FeatureOptions
from raystp.encoders.features.stages import with_features
from raystp.encoders.features.tokens import TokenGrid, with_tokens
from raystp.errors import EncoderError
from raystp.steps.encoder_source import EncoderSource
from raystp.storage import StoragePath

VECTORS, TOKENS = "embeddings", "tokens"
"""Folders of the tables."""

TOKENS_FILE: dict[str, Any] = {"use_dictionary": False, "use_byte_stream_split": ["tokens.list.element"]}
"""For 512 tiles of 49 x 1,024 numbers after a ReLU: 1.2 s and 54 % of the bytes; the default takes 4.0 s and 64 %."""


@dataclass(frozen=True)
class EncoderOutput:
    """One encoder, and the folder of its artifact."""

    path: StoragePath
    source: EncoderSource
    dim: int
    """Length of a row, with all layers and sizes of tiles."""
    features: FeatureOptions = OWN_ROW
    tokens: TokenGrid | None = None
    """Spatial tokens of each tile; None for none."""

    @property
    def columns(self) -> int:
        """Number of stored columns: vectors, and tokens if there are any."""
        return 1 if self.tokens is None else 2

    def build(self) -> Encoder:
        """Build the encoder, whose rows are what is stored of one tile; raises its errors."""
        encoder = self.source.build()
        features = with_features(encoder, self.features)
        return features if self.tokens is None else with_tokens(features, self.tokens.side, trunk=encoder.network)

    def split(self, rows: Float[np.ndarray, "tile value"], scales: int) -> Encoded:
        """Return the vectors, and the tokens as float16, of places with `scales` adjacent rows each.

        Raises EncoderError for tokens beyond the range of float16.
        """
        places, own = len(rows) // scales, self.dim // scales
        vectors = rows[:, :own].reshape(places, self.dim)
        if self.tokens is None:
            return (vectors,)
        tokens = rows[:, own:]
        if tokens.size and max(tokens.max(), -tokens.min()) > np.finfo(np.float16).max:
            msg = (
                f"encoder '{self.source.spec.name}' has spatial tokens of up to {np.abs(tokens).max():.4g}, and they "
                f"are stored as float16, up to {np.finfo(np.float16).max:g}: remove `tokens`"
            )
            raise EncoderError(msg)
        return vectors, tokens.astype(np.float16).reshape(places, scales * self.tokens.values)


def commit_unit(
    outputs: Sequence[EncoderOutput],
    unit: WorkUnit,
    tiles: pa.Table,
    batches: Sequence[Encoded],
    *,
    precision: Precision,
    again: bool,
) -> None:
    """Write a unit's tables for each encoder, then its commit record; existing ones are kept, unless `again`.

    `batches` have the columns of all encoders, one after the other. `tiles` are the rows of the unit's tiles.
    """
    columns = list(zip(*batches, strict=True))
    ends = list(itertools.accumulate(output.columns for output in outputs))
    for output, end in zip(outputs, ends, strict=True):
        vectors, *tokens = columns[end - output.columns : end]
        # Tokens first: a reader that sees the vectors of an unfinished artifact then has both.
        written = {TOKENS: _token_table(tiles, tokens[0])} if tokens else {}
        written[VECTORS] = _vector_table(tiles, np.concatenate(vectors), output.dim, stored_precision(precision))
        digests = {
            name: _write(output.path / name / unit.slide / f"{unit.unit}.parquet", table, again=again)
            for name, table in written.items()
        }
        values = {"rows": tiles.num_rows, "dim": output.dim, "sha256": digests.pop(VECTORS)}
        values |= {f"{name}_sha256": digest for name, digest in digests.items()}
        record = commit_record(output, unit)
        if again:
            record.remove()
        record.write_new(json.dumps(values).encode())


def commit_record(output: EncoderOutput, unit: WorkUnit) -> StoragePath:
    """Return the path of a unit's commit record."""
    return output.path / "commits" / f"{unit.unit}.json"


def _vector_table(tiles: pa.Table, vectors: np.ndarray, dim: int, precision: str) -> pa.Table:
    columns = [column.combine_chunks() for column in tiles.columns]
    schema = tables.embeddings(dim, precision=precision)
    return pa.Table.from_arrays([*columns, tables.vectors(vectors, precision)], schema=schema)


def _token_table(tiles: pa.Table, batches: Sequence[np.ndarray]) -> pa.Table:
    """Return the table of a unit's tokens, which share the memory of the batches."""
    schema = tables.tokens(batches[0].shape[1])
    tokens = pa.chunked_array([tables.vectors(one, "float16") for one in batches], schema.field("tokens").type)
    return pa.Table.from_arrays([tiles["tile"].combine_chunks(), tokens], schema=schema)


def _write(file: StoragePath, table: pa.Table, *, again: bool) -> str:
    """Write a table, unless its file exists; return the digest of the file's content."""
    stream = io.BytesIO()
    options = TOKENS_FILE if "tokens" in table.column_names else tables.parquet_options(table.schema)
    pq.write_table(table, stream, compression="zstd", **options)
    content = stream.getvalue()
    if again:
        file.write_bytes(content)
    elif not file.write_new(content):
        content = file.read_bytes()  # of a worker that died before its commit record, or is still running
    return hashlib.sha256(content).hexdigest()
