"""Arrow IPC streams: tiles' features in, an answer out.

A stream is a stranger's: its schema is checked before any of its batches is read, compressed batches are refused (a few
bytes may stand for gigabytes), and every batch is validated before a value is looked at.
"""

import json
import struct
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from raystp.cluster.serving.auth import RequestRefused
from raystp.cluster.serving.messages import ImputeRequest, ImputeResponse, options_of

STREAM = "application/vnd.apache.arrow.stream"
FEATURES = "features"
OPTIONS = b"raystp"
"""Key of the schema's metadata: the options as a JSON object; in an answer, the genes."""
FLAGS = {"true": True, "1": True, "false": False, "0": False}
COMPRESSION = 3
"""Field of a record batch's header, in Arrow's format."""


def from_arrow(content: bytes, query: dict[str, str]) -> ImputeRequest:
    """Return the question of a stream, its options from the schema's metadata and the query string."""
    try:
        reader = pa.ipc.open_stream(pa.py_buffer(content))
        width = _width(reader.schema)
        _check_plain(content)
        batches = []
        for batch in reader:
            batch.validate(full=True)
            batches.append(_values(batch.column(0), width))
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, struct.error) as error:
        raise RequestRefused(
            400, f"the body is no Arrow IPC stream: {str(error).partition(chr(10))[0] or 'it is cut'}"
        ) from None
    features = np.concatenate(batches) if batches else np.empty((0, width), np.float32)
    return ImputeRequest(options_of(_options(reader.schema.metadata or {}, query)), features)


def to_arrow(answered: ImputeResponse) -> bytes:
    """Return an answer as a stream: a row per tile, the genes in the schema's metadata."""
    columns = {"expression": _lists(answered.expression)}
    if answered.spread is not None:
        columns["spread"] = _lists(answered.spread)
    columns |= {"distance": pa.array(answered.distance), "far": pa.array(answered.far)}
    if answered.neighbours is not None:
        near = answered.neighbours
        columns |= {"rows": _lists(near.rows), "weights": _lists(near.weights)}
        columns |= {"sections": pa.array(near.sections), "spots": pa.array(near.spots)}
    if answered.squares is not None:
        columns["squares"] = _lists(answered.squares)
    table = pa.table(columns).replace_schema_metadata({OPTIONS: json.dumps({"genes": answered.genes}).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]  # pyarrow has no types


def _lists(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _width(schema: pa.Schema) -> int:
    kind = schema.field(0).type if len(schema) == 1 else pa.null()
    plain = pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type) and kind.list_size > 0
    if not plain:
        msg = f"the stream has one column, `{FEATURES}`, a fixed-size list of float16, 32 or 64; got {schema.names}"
        raise RequestRefused(422, msg)
    return int(kind.list_size)


def _values(column: pa.FixedSizeListArray, width: int) -> Float32[np.ndarray, "tile feature"]:
    flat = column.flatten()
    if column.null_count or flat.null_count:
        msg = f"{FEATURES}: a tile or a value is missing (null)"
        raise RequestRefused(422, msg)
    with np.errstate(over="ignore"):
        values: np.ndarray = flat.to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, width)
    return values


def _check_plain(content: bytes) -> None:
    """Raise Refused for a compressed batch: Arrow would unpack it, whatever its size."""
    reader = pa.ipc.MessageReader.open_stream(pa.py_buffer(content))
    while True:
        try:
            message = reader.read_next_message()
        except (StopIteration, EOFError):
            return
        if message.type == "record batch" and _has_compression(message.metadata.to_pybytes()):
            raise RequestRefused(415, "compressed Arrow streams are not read: write it without compression")


def _has_compression(header: bytes) -> bool:
    """Look into a message's flatbuffer: message -> header (a record batch) -> is `compression` set."""
    message = struct.unpack_from("<I", header, 0)[0]
    batch = message + _field(header, message, 2)
    batch += struct.unpack_from("<I", header, batch)[0]
    return _field(header, batch, COMPRESSION) != 0


def _field(buffer: bytes, table: int, number: int) -> int:
    """Return where a table of a flatbuffer keeps a field, counted from the table's start; 0 for an absent one."""
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    size = struct.unpack_from("<H", buffer, vtable)[0]
    at = 4 + 2 * number
    return int(struct.unpack_from("<H", buffer, vtable + at)[0]) if at < size else 0


def _options(metadata: dict[bytes, bytes], query: dict[str, str]) -> dict[str, Any]:
    try:
        options = json.loads(metadata.get(OPTIONS, b"{}"))
    except (ValueError, RecursionError):
        raise RequestRefused(400, "the schema's metadata `raystp` is not JSON") from None
    if not isinstance(options, dict):
        raise RequestRefused(422, "the schema's metadata `raystp` is no object of options")
    return options | {name: _plain(name, text) for name, text in query.items()}


def _plain(name: str, text: str) -> Any:
    """Return a query string's value as JSON would have it; lists are written with commas."""
    if name in {"genes", "without"}:
        return [one for one in text.split(",") if one]
    if name in {"spread", "neighbours"}:
        return FLAGS.get(text.lower(), text)
    return int(text) if name == "k" and text.isascii() and text.isdigit() and len(text) < 10 else text  # noqa: PLR2004
