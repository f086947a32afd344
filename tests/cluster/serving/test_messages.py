"""Parsing of JSON requests, and limits."""

import json
from typing import Any

import pytest

from raystp.cluster.serving.asgi import RequestRefused
from raystp.cluster.serving.messages import RequestLimits, from_json


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "the body is not JSON: EOF while parsing"),
        (b"{", 400, "the body is not JSON: EOF while parsing"),
        (b"\xff\xfe", 400, "the body is not JSON"),
        (b"[" * 100_000, 400, "the body is not JSON: recursion limit exceeded"),
        (b"[]", 422, "the body: "),
        (b"{}", 422, "give exactly one of `embeddings`, `pixels`, or `slide` with `region`; got none"),
        (b'{"embeddings": [], "pixels": []}', 422, "; got embeddings, pixels"),
        (b'{"slide": "a"}', 422, "; got slide"),
        (b'{"embeddings": [], "region": {"x": 0, "y": 0}}', 422, "; got embeddings, region"),
        (b'{"embeddings": [[1, 2], [1]]}', 422, "all rows must have the same length, got lengths '1', '2'"),
        (b'{"embeddings": [["1"]]}', 422, "embeddings.0.0: Input should be a valid number"),
        (b'{"embeddings": [[true]]}', 422, "embeddings.0.0: Input should be a valid number"),
        (b'{"embeddings": [1]}', 422, "embeddings.0: Input should be a valid array"),
        (b'{"embeddings": [], "k": 0}', 422, "k: Input should be a whole number from 1 on"),
        (b'{"embeddings": [], "k": 1.5}', 422, "k: Input should be a whole number from 1 on"),
        (b'{"embeddings": [], "genes": "A"}', 422, "genes: Input should be a valid array"),
        (b'{"embeddings": [], "gene": ["A"]}', 422, "gene: Extra inputs are not permitted"),
        (b'{"slide": "a", "region": {"x": NaN, "y": 0}}', 422, "region.x: Input should be a finite number"),
        (b'{"slide": "a", "region": {"x": 0, "y": 0, "tiles": [0, 1]}}', 422, "region.tiles.0: "),
        (b'{"embeddings": [' + b"[[]]," * 9 + b"[[]]]}", 422, "; and 5 more"),
    ],
)
def test_an_invalid_body_is_refused_with_a_message(body: bytes, status: int, message: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        from_json(body)
    assert caught.value.status == status
    assert message in caught.value.message
    assert len(caught.value.message) < 700


def test_a_json_body_is_parsed() -> None:
    request = from_json(b'{"embeddings": [[1, 2.5]], "genes": ["B", "A"], "k": 3, "spread": true, "without": ["P1"]}')
    assert request.features is not None
    assert request.features.tolist() == [[1.0, 2.5]]
    assert (request.tiles, request.options.genes, request.options.k) == (1, ["B", "A"], 3)
    assert (request.options.weights, request.options.spread, request.options.without) == (None, True, ["P1"])


@pytest.mark.parametrize(
    ("tiles", "options", "status", "message"),
    [
        (9, {}, 413, "9 tiles were sent, the limit is 8 per request"),
        (1, {"k": 6}, 422, "k: 6 neighbours were requested, the limit is 5"),
        (1, {"genes": ["A"] * 5}, 422, "genes: 5 were requested, the limit is 4 per request"),
        (8, {"genes": ["A"] * 4}, 422, "8 tiles x 4 genes exceed the limit of 30 values: request fewer of either"),
        (8, {"genes": ["A"] * 3}, 0, ""),
    ],
)
def test_a_request_beyond_the_limits_is_refused(tiles: int, options: dict[str, Any], status: int, message: str) -> None:
    request = from_json(json.dumps({"embeddings": [[1.0]] * tiles, "k": 1} | options).encode())
    limits = RequestLimits(tiles=8, k=5, genes=4, values=30)
    if not status:
        limits.check(request, 2)
        return
    with pytest.raises(RequestRefused) as caught:
        limits.check(request, 2)
    assert (caught.value.status, caught.value.message) == (status, message)
