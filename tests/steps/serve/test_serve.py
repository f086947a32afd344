"""`raystp serve` as a process on loopback: responses over HTTP, refusals, limits and its description of itself."""

import base64
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from raystp.artifacts import resolve
from raystp.cluster.serving.arrow import STREAM
from raystp.cluster.serving.messages import ImputeRequest, ImputeResponse, JsonRequest, RequestOptions
from raystp.encoders.encoder import EncoderSpec, encode
from raystp.encoders.registry import build
from raystp.impute.imputer import NeighborImputer
from raystp.steps.serve.config import ServeConfig
from raystp.steps.serve.handler import ImputeHandler, open_handler
from tests.cluster.serving.service_toy import (
    GENES,
    ROWS,
    TOKEN,
    Client,
    K,
    RunningService,
    features,
    running_service,
)
from tests.conftest import ROOT

pytestmark = [pytest.mark.ray, pytest.mark.slow]

LIMITS = {"body_bytes": 200_000, "tiles": 16, "k": 50, "values": 150, "requests": 24, "deadline_s": 5.0}
TILE_PX = 224
"""Of the encoder `tiny`; on the toy's slide of 0.5 um/px that is 112 um."""


@pytest.fixture(scope="module")
def service(store: Path) -> Iterator[RunningService]:
    values = {
        "encoder": {"name": "tiny"},
        "slides": [str(store.parent / "slides")],
        "tile_um": 112.0,
        "far_distance": 0.5,
        "token": {"env": "TOKEN_OF_TEST"},
        "limits": LIMITS,
        "batch": {"tiles": 64, "wait_ms": 20},
        "run": {"replicas": 1},
    }
    with running_service(store, values, TOKEN_OF_TEST=TOKEN) as one:
        yield one


@pytest.fixture
def client(service: RunningService) -> Client:
    return service.client()


@pytest.fixture(autouse=True)
def _close_clients(request: pytest.FixtureRequest) -> Iterator[None]:
    """Close the connections that a test opened."""
    yield
    if "service" in request.fixturenames:
        request.getfixturevalue("service").close_clients()


@pytest.fixture(scope="module")
def handler(store: Path) -> ImputeHandler:
    values = {"model": "train/toy", "index": "index/toy", "far_distance": 0.5, "run": {"store": str(store)}}
    opened = open_handler(ServeConfig.of(values))
    assert isinstance(opened, ImputeHandler)
    return opened


@pytest.fixture(scope="module")
def imputer(handler: ImputeHandler) -> NeighborImputer:
    return handler.imputer


def arrow(values: np.ndarray, options: dict[str, Any]) -> bytes:
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    table = pa.table({"features": column}).replace_schema_metadata({b"raystp": json.dumps(options).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


# ---- responses


@pytest.mark.parametrize("weights", ["mean", "top1", "softmax", "weighted_average"])
def test_a_response_equals_the_imputers_result_in_json_and_in_arrow(
    client: Client, imputer: NeighborImputer, weights: str
) -> None:
    tiles, genes = features(4, seed=9), ["G7", "G0", "G3"]
    options = {"genes": genes, "k": K, "weights": weights, "spread": True, "neighbours": True}
    own = NeighborImputer(imputer.model, imputer.index, weights)
    found, columns = own.find(tiles, K), own.columns(genes)
    expression = own.expression(found, columns)
    spread = own.spread(found, expression, columns)

    response = client.impute({"embeddings": tiles.tolist(), **options})
    assert (response.status, response.headers["content-type"]) == (200, "application/json")
    values = response.values
    assert values["genes"] == genes
    np.testing.assert_allclose(values["expression"], expression, rtol=1e-5)
    np.testing.assert_allclose(values["spread"], spread, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(values["distance"], own.distance(found), atol=1e-5)
    assert values["far"] == (own.distance(found) > 0.5).tolist()
    assert values["neighbours"]["rows"] == found.rows.tolist()
    assert values["neighbours"]["spots"] == [[f"s{row}" for row in line] for line in found.rows.tolist()]
    assert values["neighbours"]["sections"] == [["A1" if r < ROWS // 2 else "B1" for r in line] for line in found.rows]

    response = client.impute(arrow(tiles, options), {"content-type": STREAM, "accept": STREAM})
    assert (response.status, response.headers["content-type"]) == (200, STREAM)
    table = pa.ipc.open_stream(response.content).read_all()
    assert json.loads(table.schema.metadata[b"raystp"])["genes"] == genes
    np.testing.assert_allclose(table["expression"].to_pylist(), expression, rtol=1e-5)
    assert table["rows"].to_pylist() == found.rows.tolist()


def test_without_genes_all_are_returned_and_no_tiles_give_an_empty_response(client: Client) -> None:
    assert client.impute({"embeddings": features(1, 0).tolist(), "k": K}).values["genes"] == GENES
    assert client.impute({"embeddings": [], "k": K}).values == {
        "genes": GENES,
        "expression": [],
        "distance": [],
        "far": [],
    }


def test_an_excluded_patient_is_not_among_the_neighbours(client: Client) -> None:
    body = {"embeddings": features(8, 4).tolist(), "genes": GENES[:3], "k": 20, "neighbours": True}
    everybody, without = (client.impute(body | {"without": patients}).values for patients in ([], ["P1"]))
    assert {s for line in everybody["neighbours"]["sections"] for s in line} == {"A1", "B1"}
    assert {s for line in without["neighbours"]["sections"] for s in line} == {"B1"}


def test_pixels_are_encoded_by_the_encoder(client: Client, imputer: NeighborImputer) -> None:
    tiles = np.random.default_rng(5).integers(0, 2, (2, TILE_PX, TILE_PX, 3), np.uint8) * np.uint8(200)
    found = imputer.find(encode(build(EncoderSpec("tiny")), tiles, device="cpu"), K)
    response = client.impute({"pixels": [_png(tile) for tile in tiles], "genes": GENES[:2], "k": K})
    assert response.status == 200, response.content
    np.testing.assert_allclose(
        response.values["expression"], imputer.expression(found, imputer.columns(GENES[:2])), rtol=1e-4
    )


def test_the_tiles_of_a_region_are_in_row_major_order(client: Client, imputer: NeighborImputer, store: Path) -> None:
    image = np.asarray(Image.open(store.parent / "slides" / "A.png"))
    region = {"x": 10, "y": 20, "tiles": [3, 2], "mpp": 0.5}
    response = client.impute({"slide": "A.png", "region": region, "genes": ["G0"], "k": K})
    assert response.status == 200, response.content
    tile_boxes = [[10 + TILE_PX * column, 20 + TILE_PX * row, TILE_PX] for row in range(2) for column in range(3)]
    assert response.values["tile_boxes"] == tile_boxes
    padded = np.pad(image, ((0, 100), (0, 100), (0, 0)), constant_values=255)
    tiles = np.stack([padded[y : y + side, x : x + side] for x, y, side in tile_boxes])
    found = imputer.find(encode(build(EncoderSpec("tiny")), tiles, device="cpu"), K)
    expected = imputer.expression(found, imputer.columns(["G0"]))
    np.testing.assert_allclose(response.values["expression"], expected, rtol=1e-4)


def test_concurrent_requests_are_batched_and_each_result_is_the_same_as_alone(service: RunningService) -> None:
    bodies = [
        {"embeddings": features(1 + n % 3, n).tolist(), "genes": [GENES[n % 4]], "k": 1 + n % 4} for n in range(64)
    ]
    alone = service.client()
    expected = [alone.impute(body).values["expression"] for body in bodies]

    def send(part: list[Any]) -> list[Any]:
        one = service.client()
        return [one.impute(body) for body in part]

    with ThreadPoolExecutor(16) as pool:
        responses = [one for part in pool.map(send, [bodies[n : n + 4] for n in range(0, 64, 4)]) for one in part]
    for response, expression in zip(responses, expected, strict=True):
        assert response.status == 200, response.content
        np.testing.assert_allclose(response.values["expression"], expression, rtol=1e-5)
    batch_sizes = [int(one.headers["x-raystp-batch"]) for one in responses]
    assert max(batch_sizes) > 1
    text = alone.request("GET", "/metrics").content.decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    counts = {name.partition("{")[0]: float(number) for name, _, number in lines}
    assert counts["raystp_batch_requests_count"] < counts["raystp_batch_requests_sum"]
    assert 'status="200"' in text
    assert counts["raystp_seconds_count"] >= 128


def test_a_failing_request_does_not_affect_the_rest_of_its_batch(handler: ImputeHandler) -> None:
    options = RequestOptions(k=K, genes=["G0"])
    good = [handler.prepare(ImputeRequest(options, features(2, n))) for n in range(3)]
    # Finite values whose embedding overflows.
    bad = handler.prepare(ImputeRequest(options, np.full((1, 128), 3e38, np.float32)))
    alone = [handler.impute([one])[0] for one in good]
    batch = handler.impute([good[0], bad, good[1], good[2]])
    assert isinstance(batch[1], Exception)
    for own, other in zip(alone, [batch[0], *batch[2:]], strict=True):
        assert isinstance(own, ImputeResponse)
        assert isinstance(other, ImputeResponse)
        np.testing.assert_allclose(own.expression, other.expression, rtol=1e-5)


# ---- refusals


def _png(tile: np.ndarray) -> str:
    content = io.BytesIO()
    Image.fromarray(tile).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


ROW = [0.5] * 128
REGION = {"x": 0, "y": 0, "mpp": 0.5}
REFUSALS: list[tuple[Any, int, str]] = [
    (b"", 400, "the body is not JSON: EOF"),
    (b'{"embeddings": [[', 400, "the body is not JSON: EOF"),
    ({"k": 5}, 422, "give exactly one of `embeddings`, `pixels`, or `slide` with `region`; got none"),
    ({"embeddings": [[1.0, 2.0]], "k": 5}, 422, "embeddings: the model reads rows of 128 values, got rows of 2"),
    ({"embeddings": [ROW, [*ROW[:-1], float("nan")]]}, 422, "1 of 2 tiles contain nan or infinity (first: tile 1)"),
    ({"embeddings": [[*ROW[:-1], 1e300]]}, 422, "1 of 1 tiles contain nan or infinity (first: tile 0)"),
    ({"embeddings": [ROW], "genes": ["G0", "TP53"]}, 422, "genes 'TP53'; it has 12 genes, such as G0, G1"),
    ({"embeddings": [ROW], "k": 51}, 422, "k: 51 neighbours were requested, the limit is 50"),
    ({"embeddings": [ROW], "k": 40, "without": ["P1"]}, 422, "40 neighbours"),
    ({"embeddings": [ROW], "k": "all", "neighbours": True}, 422, "with k=all every row has a vote"),
    ({"embeddings": [ROW], "weights": "mean", "temperature": 1.0}, 422, "weights that have none"),
    (
        {"embeddings": [ROW], "weights": "median"},
        422,
        "weights: 'median' is unknown; choose one of mean, top1, softmax",
    ),
    ({"embeddings": [ROW] * 17, "k": 5, "genes": ["G0"]}, 413, "17 tiles were sent, the limit is 16 per request"),
    ({"embeddings": [ROW] * 16, "k": 5}, 422, "16 tiles x 12 genes exceed the limit of 150 values"),
    ({"embeddings": [ROW], "secret": 1}, 422, "secret: Extra inputs are not permitted"),
    ({"pixels": ["%%%"]}, 422, "pixels: image 0 is not base64"),
    ({"pixels": ["aGVsbG8="]}, 422, "pixels: image 0 is not a valid PNG or JPEG"),
    (
        {"pixels": [_png(np.zeros((9, 8, 3), np.uint8))]},
        422,
        "is 8 x 9 px, RGB; the encoder reads 8-bit RGB of 224 x 224",
    ),
    ({"slide": "none.png", "region": REGION}, 404, "unknown slide 'none.png'"),
    ({"slide": "../secret.png", "region": REGION}, 404, "unknown slide '../secret.png'"),
    ({"slide": "link.png", "region": REGION}, 404, "unknown slide 'link.png'"),
    ({"slide": "/etc/passwd", "region": REGION}, 404, "unknown slide '/etc/passwd'"),
    ({"slide": "A.png", "region": {"x": 0, "y": 0}}, 422, "um/px"),
    (
        {"slide": "A.png", "region": REGION | {"x": 9000}},
        422,
        "region: a tile lies outside slide 'A.png', which is 800",
    ),
    ({"slide": "A.png", "region": REGION | {"tile_um": 56}}, 422, "tile_um is 56, and the model reads tiles of 112 um"),
    ({"slide": "A.png", "region": REGION | {"tiles": [400, 400]}}, 413, "160,000 tiles were sent"),
]


@pytest.mark.parametrize(("body", "status", "message"), REFUSALS, ids=lambda value: str(value)[:40])
def test_an_invalid_request_gets_its_status_and_a_message(client: Client, body: Any, status: int, message: str) -> None:
    response = client.impute(body)
    assert (response.status, message in response.error) == (status, True), response.content
    assert "Traceback" not in response.error
    assert str(ROOT) not in response.error


def test_other_content_types_are_refused(client: Client) -> None:
    response = client.impute(b"a,b", {"content-type": "text/csv"})
    assert (response.status, response.error) == (
        415,
        "content-type must be application/json or application/vnd.apache.arrow.stream, got text/csv",
    )
    assert client.impute(b"abc", {"content-type": STREAM}).status == 400


def test_unknown_paths_and_methods_are_refused(client: Client) -> None:
    assert (client.request("GET", "/v2").status, client.request("GET", "/v1/impute").status) == (404, 405)
    assert client.request("GET", "/v2").error.startswith("unknown path '/v2'; the paths are /v1/impute")
    assert client.request("DELETE", "/v1/info").error == "/v1/info does not accept DELETE"


def test_without_the_token_only_health_checks_are_answered(service: RunningService) -> None:
    for one in (service.client(None), service.client("another-token-than-that")):
        response = one.impute({"embeddings": [ROW]})
        assert (response.status, response.headers["www-authenticate"]) == (401, 'Bearer realm="raystp"')
        assert [one.request("GET", path).status for path in ("/v1/info", "/metrics", "/openapi.json")] == [401] * 3
        assert [one.request("GET", path).status for path in ("/healthz", "/readyz")] == [200] * 2
    assert TOKEN not in "\n".join(service.lines)


HEAD = f"POST /v1/impute HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"


def test_a_body_of_a_gigabyte_is_refused_early_and_never_held_in_memory(service: RunningService) -> None:
    before = service.rss()
    for length, chunk in (("Content-Length: 1000000000", b"x" * 65536), ("Transfer-Encoding: chunked", b"")):
        start, sent = time.monotonic(), 0
        with socket.create_connection(("127.0.0.1", service.port), timeout=20) as one:
            one.sendall(f"{HEAD}{length}\r\n\r\n".encode())
            try:
                while sent < 1_000_000_000:
                    one.sendall(chunk or b"10000\r\n" + b"x" * 65536 + b"\r\n")
                    sent += 65536
            except OSError:
                pass  # the service closed the connection, as it should
            assert b" 413 " in one.recv(4096).partition(b"\r\n")[0]
        assert sent < 200_000_000
        assert time.monotonic() - start < 15
        assert service.rss() - before < 100 << 20
    assert service.client().request("GET", "/v1/info").status == 200


def test_a_client_that_sends_its_body_slowly_gets_408_and_delays_no_other(service: RunningService) -> None:
    slow = [socket.create_connection(("127.0.0.1", service.port), timeout=30) for _ in range(6)]
    start = time.monotonic()
    for one in slow:
        one.sendall(f"{HEAD}Content-Length: 100\r\n\r\n{{".encode())
    assert service.client().impute({"embeddings": [ROW], "k": K}).status == 200
    assert time.monotonic() - start < 4
    assert all(b" 408 " in one.recv(4096).partition(b"\r\n")[0] for one in slow)
    assert 4 < time.monotonic() - start < 20
    for one in slow:
        one.close()


def test_requests_beyond_the_limit_are_told_to_retry(service: RunningService) -> None:
    gate = threading.Barrier(60)

    def send(_: int) -> tuple[int, str]:
        one = service.client()
        gate.wait(30)
        response = one.impute({"embeddings": [ROW] * 12, "k": K})
        return response.status, response.headers.get("retry-after", "")

    with ThreadPoolExecutor(60) as pool:
        seen = set(pool.map(send, range(60)))
    assert seen <= {(200, ""), (503, "1")}
    assert (200, "") in seen
    assert service.client().impute({"embeddings": [ROW], "k": K}).status == 200


# ---- the service's description of itself


def test_info_describes_the_model_and_the_limits(client: Client, store: Path) -> None:
    info = client.request("GET", "/v1/info").values
    assert info["model"] == resolve(str(store), "train/toy", "train").manifest.folder
    assert (info["genes"], info["rows"], info["metric"], info["protocol"]) == (GENES, ROWS, "cosine", "patient")
    assert info["far_distance"] == 0.5
    assert info["limits"] == LIMITS | {"genes": 25_000}
    assert info["reads"] == ["embeddings", "pixels", "slide"]
    assert {"raystp", "ray", "torch"} <= set(info["versions"])


def test_the_openapi_description_has_no_dangling_references(client: Client) -> None:
    described = client.request("GET", "/openapi.json").values
    assert described["openapi"].startswith("3.")
    body = described["paths"]["/v1/impute"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", STREAM}
    assert set(described["components"]["schemas"]["JsonRequest"]["properties"]) == set(JsonRequest.model_fields)
    text = json.dumps(described)
    for reference in {part.partition('"')[0] for part in text.split('"$ref": "')[1:]}:
        node = described
        for key in reference.removeprefix("#/").split("/"):
            node = node[key]
    responses = described["paths"]["/v1/impute"]["post"]["responses"]
    assert {"200", "400", "401", "404", "413", "415", "422", "503", "504"} <= set(responses)
