"""Arrow IPC streams: features of tiles in requests, predicted expression in responses.

A stream is untrusted input. Its schema is checked before any batch is read, compressed batches are refused (a few
bytes may expand to gigabytes), and each batch is validated before its values are read.
"""

import json
import struct
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pydantic_core
from jaxtyping import Float32

from raystp.cluster.serving.asgi import RequestRefused
from raystp.cluster.serving.messages import ImputeRequest, ImputeResponse, parse_options

STREAM = "application/vnd.apache.arrow.stream"
FEATURES = "features"
OPTIONS = b"raystp"
"""Key of the schema's metadata: options as a JSON object in a request, genes in a response."""
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
COMPRESSION_FIELD = 3
"""Index of the field `compression` in a record batch's header, in Arrow's flatbuffer schema."""
MAX_DIGITS = 9
"""Of `k` in a query string; a longer number stays text, which the validation refuses."""


def from_arrow(content: bytes, query: Mapping[str, str]) -> ImputeRequest:
    """Parse a stream; options come from the schema's metadata and the query string, which takes precedence.

    Raises RequestRefused: 400 for an invalid stream, 415 for compression, 422 for a wrong schema or option.
    """
    try:
        reader = pa.ipc.open_stream(pa.py_buffer(content))
        length = _feature_length(reader.schema)
        _check_uncompressed(content)
        batches = []
        for batch in reader:
            batch.validate(full=True)
            batches.append(_values(batch.column(0), length))
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, struct.error) as error:
        reason = str(error).partition("\n")[0] or "it is truncated"
        raise RequestRefused(400, f"the body is not a valid Arrow IPC stream: {reason}") from None
    features = np.concatenate(batches) if batches else np.empty((0, length), np.float32)
    return ImputeRequest(parse_options(_options(reader.schema.metadata or {}, query)), features)


def to_arrow(response: ImputeResponse) -> bytes:
    """Return a response as a stream: a row per tile, the genes in the schema's metadata."""
    columns = {"expression": _lists(response.expression)}
    if response.spread is not None:
        columns["spread"] = _lists(response.spread)
    columns |= {"distance": pa.array(response.distance), "far": pa.array(response.far)}
    if response.neighbours is not None:
        neighbours = response.neighbours
        columns |= {"rows": _lists(neighbours.rows), "weights": _lists(neighbours.weights)}
        columns |= {"sections": pa.array(neighbours.sections), "spots": pa.array(neighbours.spots)}
    if response.tile_boxes is not None:
        columns["tile_boxes"] = _lists(response.tile_boxes)
    table = pa.table(columns).replace_schema_metadata({OPTIONS: json.dumps({"genes": response.genes}).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _lists(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _feature_length(schema: pa.Schema) -> int:
    kind = schema.field(0).type if len(schema) == 1 else pa.null()
    if not (pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type) and kind.list_size > 0):
        msg = (
            f"the stream must have one column, `{FEATURES}`, a fixed-size list of float16, 32 or 64; got {schema.names}"
        )
        raise RequestRefused(422, msg)
    return int(kind.list_size)


def _values(column: pa.FixedSizeListArray, length: int) -> Float32[np.ndarray, "tile feature"]:
    flat = column.flatten()
    if column.null_count or flat.null_count:
        msg = f"{FEATURES}: a tile or a value is missing (null)"
        raise RequestRefused(422, msg)
    with np.errstate(over="ignore"):
        values: np.ndarray = flat.to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, length)
    return values


def _check_uncompressed(content: bytes) -> None:
    """Raise RequestRefused for a compressed batch: Arrow would decompress it to any size."""
    reader = pa.ipc.MessageReader.open_stream(pa.py_buffer(content))
    while True:
        try:
            message = reader.read_next_message()
        except (StopIteration, EOFError):
            return
        if message.type == "record batch" and _has_compression(message.metadata.to_pybytes()):
            raise RequestRefused(415, "compressed Arrow streams are not accepted: write the stream uncompressed")


def _has_compression(metadata: bytes) -> bool:
    """Follow a message's flatbuffer to the header (a record batch); return whether `compression` is set there."""
    message = struct.unpack_from("<I", metadata, 0)[0]
    batch = message + _field_offset(metadata, message, 2)
    batch += struct.unpack_from("<I", metadata, batch)[0]
    return _field_offset(metadata, batch, COMPRESSION_FIELD) != 0


def _field_offset(buffer: bytes, table: int, field: int) -> int:
    """Return a field's offset from the start of a flatbuffer table; 0 if the field is absent."""
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    size = struct.unpack_from("<H", buffer, vtable)[0]
    entry = 4 + 2 * field
    return int(struct.unpack_from("<H", buffer, vtable + entry)[0]) if entry < size else 0


def _options(metadata: Mapping[bytes, bytes], query: Mapping[str, str]) -> dict[str, object]:
    try:
        options = pydantic_core.from_json(metadata.get(OPTIONS, b"{}"))  # refuses half of a surrogate pair
    except ValueError:
        raise RequestRefused(400, "the schema's metadata `raystp` is not JSON") from None
    if not isinstance(options, dict):
        raise RequestRefused(422, "the schema's metadata `raystp` is not a JSON object of options")
    return options | {name: _query_value(name, text) for name, text in query.items()}


def _query_value(name: str, text: str) -> object:
    """Convert a query string's value to its JSON type; lists are separated by commas."""
    if name in {"genes", "without"}:
        return [item for item in text.split(",") if item]
    if name in {"spread", "neighbours"}:
        return BOOLEANS.get(text.lower(), text)
    return int(text) if name == "k" and text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else text
