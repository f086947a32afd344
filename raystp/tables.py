"""The tables that steps exchange: an Arrow schema with a version for each.

A stored table has its name and version in the schema's metadata; `check` refuses another version. Coordinates are in
level-0 pixels of the slide: (x, y) is the top-left corner, x the column, y the row.
"""

import csv
import io
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Float32

from raystp.errors import ArtifactError

NAME, VERSION = b"raystp.table", b"raystp.version"


def new_schema(name: str, version: int, fields: list[pa.Field]) -> pa.Schema:
    """Return the schema of a table with a name and a version."""
    return pa.schema(fields, metadata={NAME: name.encode(), VERSION: str(version).encode()})


SLIDES = new_schema(
    "slides",
    1,
    [
        pa.field("slide", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("patient", pa.string(), nullable=False),
        pa.field("content", pa.string(), nullable=False),  # content id: size and digest of head and tail
        pa.field("mpp", pa.float64(), nullable=False),  # um/px used
        pa.field("mpp_from", pa.string(), nullable=False),  # table | slide | spots
        pa.field("width", pa.int64(), nullable=False),  # level-0 px
        pa.field("height", pa.int64(), nullable=False),
        pa.field("native", pa.bool_(), nullable=False),  # read without resampling
        pa.field("tissue", pa.float64(), nullable=False),  # share of the slide's area, or of its bounds
        pa.field("tiles", pa.int64(), nullable=False),
    ],
)

TILES = new_schema(
    "tiles",
    1,
    [
        pa.field("slide", pa.string(), nullable=False),
        pa.field("tile", pa.int64(), nullable=False),  # 0..n-1 within the slide, in reading order
        pa.field("x", pa.float64(), nullable=False),
        pa.field("y", pa.float64(), nullable=False),
        pa.field("side", pa.float64(), nullable=False),
        pa.field("spot", pa.string()),  # null for a tile of a grid
    ],
)

SCALES = new_schema(
    "scales",
    1,
    [
        pa.field("tile", pa.int64(), nullable=False),  # of the tiles table
        pa.field("tile_um", pa.float64(), nullable=False),
        pa.field("x", pa.float64(), nullable=False),
        pa.field("y", pa.float64(), nullable=False),
        pa.field("side", pa.float64(), nullable=False),
    ],
)
"""Boxes of several sizes around each tile: the rows of a tile are adjacent, in the order of the sizes."""

FAILURES = new_schema(
    "failures",
    1,
    [
        pa.field("slide", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ],
)

EPOCHS = new_schema(
    "epochs",
    1,
    [
        pa.field("epoch", pa.int64(), nullable=False),
        pa.field("train_loss", pa.float64(), nullable=False),
        pa.field("validation_loss", pa.float64()),
        pa.field("validation_pcc", pa.float64()),
        pa.field("seconds", pa.float64(), nullable=False),
    ],
)

VALIDATION = new_schema(
    "validation",
    1,
    [
        pa.field("epoch", pa.int64(), nullable=False),
        pa.field("retrieval", pa.int64(), nullable=False),  # 0: the model's own; n: the nth of retrieval.compare
        pa.field("pcc", pa.float64()),
        pa.field("mse", pa.float64()),
        pa.field("gene_mean_mse", pa.float64()),  # of the training means
    ],
)

COMPLETION_STEPS = new_schema(
    "completion steps",
    1,
    [
        pa.field("step", pa.int64(), nullable=False),
        pa.field("train_mse", pa.float64(), nullable=False),  # on hidden entries of the step's batch
        pa.field("validation_mse", pa.float64()),  # on hidden entries of the validation sections
    ],
)

COMPLETION_ERRORS = new_schema(
    "completion errors",
    1,
    [
        pa.field("section", pa.string(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("mse", pa.float64(), nullable=False),
        pa.field("mae", pa.float64(), nullable=False),
        pa.field("pcc", pa.float64()),  # mean over genes; null where no gene has one
        pa.field("entries", pa.int64(), nullable=False),  # counted entries that were hidden
    ],
)

TRIALS = new_schema(
    "trials",
    1,
    [
        pa.field("trial", pa.int64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # finished | stopped | failed
        pa.field("score", pa.float64()),  # the sweep's metric, of the chosen epoch or the last reported one
        pa.field("epochs", pa.int64(), nullable=False),
        pa.field("overrides", pa.string(), nullable=False),  # JSON: dotted field -> value
        pa.field("model", pa.string()),  # train/<name>-<fingerprint>
        pa.field("reason", pa.string()),  # of the failure
        pa.field("seconds", pa.float64(), nullable=False),
    ],
)

SCORES = new_schema(
    "scores",
    1,
    [
        pa.field("protocol", pa.string(), nullable=False),
        pa.field("panel", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("section", pa.string(), nullable=False),  # a section's name, `mean` over sections, or `pooled`
        pa.field("genes", pa.string(), nullable=False),  # all | HEG-50 | HVG-50 | planted | ...
        pa.field("metric", pa.string(), nullable=False),  # PCC | MSE | MAE | RVD | spot-PCC | spread
        pa.field("value", pa.float64(), nullable=False),
        pa.field("low", pa.float64()),  # bootstrap 95 % interval
        pa.field("high", pa.float64()),
        pa.field("null_mean", pa.float64()),  # permutation null
        pa.field("null_sd", pa.float64()),
        pa.field("constant", pa.int64(), nullable=False),  # predictions without variance, whose PCC is taken as 0
        pa.field("n", pa.int64(), nullable=False),  # spots
    ],
)


def embeddings(dim: int, *, precision: str = "float32") -> pa.Schema:
    """Return the schema of an embeddings table: a tile and its vector of `dim` values.

    `precision` is `float32` or `float16`; the schema has it (`fixed_size_list<...>[dim]`).
    """
    value = {"float32": pa.float32(), "float16": pa.float16()}[precision]
    return new_schema("embeddings", 1, [*TILES, pa.field("vector", pa.list_(value, dim), nullable=False)])


def tokens(values: int) -> pa.Schema:
    """Return the schema of spatial tokens: a tile's number in its slide, and its tokens, one after the other.

    With several sizes of tiles, those of the first size come first.
    """
    kept = pa.field("tokens", pa.list_(pa.float16(), values), nullable=False)
    return new_schema("tokens", 1, [pa.field("tile", pa.int64(), nullable=False), kept])


def queries(joint: int) -> pa.Schema:
    """Return the schema of queries to an index: section and patient of a tile, and the model's vector."""
    names = [pa.field(name, pa.string(), nullable=False) for name in ("section", "patient")]
    return new_schema("queries", 1, [*names, pa.field("vector", pa.list_(pa.float32(), joint), nullable=False)])


def predictions(genes: int) -> pa.Schema:
    """Return the schema of a cohort's predictions: a tile and its expression over the model's `genes` genes."""
    return new_schema("predictions", 1, [*TILES, pa.field("expression", pa.list_(pa.float32(), genes), nullable=False)])


def neighbours(k: int, *, weights: str | None = "float16") -> pa.Schema:
    """Return the schema of predictions as neighbours: a tile, `k` rows of the reference index, and their weights.

    `weights` is `float32`, `float16`, or None for neighbours with equal weights, which need no column.
    """
    fields = [
        pa.field("rows", pa.list_(pa.int32(), k), nullable=False),  # of the reference index, nearest first
        pa.field("distance", pa.float32(), nullable=False),  # to the nearest one: 1 - cosine, or Euclidean
    ]
    if weights is not None:
        value = {"float32": pa.float32(), "float16": pa.float16()}[weights]
        fields.append(pa.field("weights", pa.list_(value, k), nullable=False))
    return new_schema("neighbours", 1, [*TILES, *fields])


def parquet_options(schema: pa.Schema) -> dict[str, list[str]]:
    """Return how a table's columns are encoded in parquet, for `pyarrow.parquet.write_table`.

    Only text has a dictionary: one of numbers that are nearly all distinct is stored beside them, and was a third of a
    file of vectors. Lists of floats are split into streams of bytes, which compress better.
    """
    floats = [field.name for field in schema if pa.types.is_fixed_size_list(field.type)]
    floats = [name for name in floats if pa.types.is_floating(schema.field(name).type.value_type)]
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    return {"use_dictionary": texts, "use_byte_stream_split": [f"{name}.list.element" for name in floats]}


def check(found: pa.Schema, expected: pa.Schema, where: str) -> None:
    """Raise ArtifactError if a table read from `where` has another name, version or columns than `expected`."""
    found_label, label = _label(found), _label(expected)
    if found_label != label:
        msg = f"{where} is {found_label}, and this raystp reads {label}: run its step again with this version"
        raise ArtifactError(msg)
    if not found.equals(expected):
        differ = [f.name for f in expected if f.name not in found.names or not found.field(f.name).equals(f)]
        msg = f"{where} is {label}, but its columns differ: {differ or found.names}; the file is damaged or was changed"
        raise ArtifactError(msg)


def _label(schema: pa.Schema) -> str:
    metadata = schema.metadata or {}
    if NAME not in metadata:
        return "a table without the name and version that raystp writes"
    return f"table '{metadata[NAME].decode()}' version {metadata.get(VERSION, b'?').decode()}"


def of_rows(rows: Iterable[dict[str, object]], schema: pa.Schema) -> pa.Table:
    """Return a table of plain dictionaries in the given schema, columns in the schema's order."""
    return pa.Table.from_pylist(list(rows), schema=schema)


def of_columns(columns: Sequence[object], schema: pa.Schema) -> pa.Table:
    """Return a table of whole columns, in the order of the given schema."""
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def csv_text(table: pa.Table) -> str:
    """Return a table as CSV: floats with six digits, null as nothing, the numbers of a list separated by spaces."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.column_names)
    for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
        writer.writerow([_cell(one) for one in row])
    return out.getvalue()


def _cell(value: object) -> str:
    if isinstance(value, list):
        return " ".join(_cell(one) for one in value)
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def vectors(values: Float[np.ndarray, "row dim"], precision: str = "float32") -> pa.FixedSizeListArray:
    """Return rows of numbers as one Arrow column of fixed-size lists in the given precision."""
    flat = pa.array(np.ascontiguousarray(values, dtype=precision).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def matrix(column: pa.ChunkedArray) -> Float32[np.ndarray, "row dim"]:
    """Return a column of fixed-size lists as float32 rows."""
    dim = column.type.list_size
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(-1, dim)


def strings(values: Sequence[str]) -> pa.Array:
    """Return names as an Arrow column."""
    return pa.array(list(values), pa.string())


ATTENTION_MAP, CONTRIBUTION_MAP = "attention", "contribution"
MAPS = (ATTENTION_MAP, CONTRIBUTION_MAP)
"""Layers of a predicted slide: how much each tile counts, and its share of the prediction."""
