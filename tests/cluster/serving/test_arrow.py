"""Arrow IPC streams as requests and responses."""

import contextlib
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raystp.cluster.serving import arrow
from raystp.cluster.serving.arrow import from_arrow, to_arrow
from raystp.cluster.serving.asgi import RequestRefused
from raystp.cluster.serving.messages import ImputeRequest, ImputeResponse, ResponseNeighbours


def stream(values: np.ndarray, metadata: dict[bytes, bytes] | None = None, **options: Any) -> bytes:
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    table = pa.table({"features": column}).replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=2)
    content: bytes = sink.getvalue().to_pybytes()
    return content


VALUES = np.arange(6, dtype=np.float32).reshape(3, 2)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_stream_is_parsed_to_features_and_options(dtype: Any) -> None:
    request = from_arrow(stream(VALUES.astype(dtype), {b"raystp": b'{"k": 3}'}), {"genes": "B,A", "spread": "true"})
    assert isinstance(request, ImputeRequest)
    assert request.features is not None
    np.testing.assert_array_equal(request.features, VALUES)
    assert request.features.dtype == np.float32
    assert (request.options.k, request.options.genes, request.options.spread) == (3, ["B", "A"], True)


@pytest.mark.parametrize(
    ("content", "query", "status", "message"),
    [
        (b"", {}, 400, "the body is not a valid Arrow IPC stream"),
        (b"not arrow at all", {}, 400, "the body is not a valid Arrow IPC stream"),
        (stream(VALUES)[:-40], {}, 400, "the body is not a valid Arrow IPC stream"),
        (stream(VALUES, compression="zstd"), {}, 415, "compressed Arrow streams are not accepted"),
        (stream(VALUES, compression="lz4"), {}, 415, "compressed Arrow streams are not accepted"),
        (stream(VALUES.astype(np.int32)), {}, 422, "a fixed-size list of float16, 32 or 64"),
        (stream(VALUES, {b"raystp": b"{"}), {}, 400, "the schema's metadata `raystp` is not JSON"),
        (stream(VALUES, {b"raystp": b"[]"}), {}, 422, "is not a JSON object of options"),
        (stream(VALUES), {"k": "many"}, 422, "k: Input should be a whole number from 1 on, or 'all'"),
        (stream(VALUES), {"kk": "3"}, 422, "kk: Extra inputs are not permitted"),
    ],
)
def test_an_invalid_stream_is_refused(content: bytes, query: dict[str, str], status: int, message: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        from_arrow(content, query)
    assert caught.value.status == status
    assert message in caught.value.message


def test_a_null_in_a_stream_is_refused() -> None:
    column = pa.array([[1.0, None]], pa.list_(pa.float32(), 2))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.schema([("features", column.type)])) as writer:
        writer.write_batch(pa.record_batch([column], ["features"]))
    with pytest.raises(RequestRefused, match="missing"):
        from_arrow(sink.getvalue().to_pybytes(), {})


def test_a_corrupted_stream_is_parsed_or_refused() -> None:
    rng, whole = np.random.default_rng(0), stream(VALUES)
    for _ in range(2000):
        content = bytearray(whole)
        for position in rng.integers(0, len(content), rng.integers(1, 6)):
            content[position] = rng.integers(256)
        with contextlib.suppress(RequestRefused):
            request = from_arrow(bytes(content), {})
            assert request.features is not None
            assert request.features.nbytes <= 4 * len(whole)


def test_a_response_is_the_same_in_json_and_in_arrow() -> None:
    neighbours = ResponseNeighbours(
        np.array([[3, 1]]), np.array([[0.5, 0.5]], np.float32), [["A1", "A1"]], [["s3", "s1"]]
    )
    expression = np.array([[0.1, 2.0]], np.float32)
    response = ImputeResponse(
        genes=["A", "B"],
        expression=expression,
        distance=np.array([0.3], np.float32),
        far=np.array([True]),
        spread=expression / 2,
        neighbours=neighbours,
        tile_boxes=np.ones((1, 3)),
    )
    values = json.loads(response.to_json())
    table = pa.ipc.open_stream(to_arrow(response)).read_all()
    assert json.loads(table.schema.metadata[arrow.OPTIONS]) == {"genes": ["A", "B"]}
    columns = {name: table[name].to_pylist() for name in table.column_names}
    assert np.float32(values["expression"]).tolist() == expression.tolist() == columns["expression"]
    assert [values[name] for name in ("distance", "far", "spread", "tile_boxes")] == [
        columns[name] for name in ("distance", "far", "spread", "tile_boxes")
    ]
    assert values["neighbours"] == {name: columns[name] for name in ("rows", "weights", "sections", "spots")}
