"""The service's parts, each by itself: the door, the forms, and Arrow streams."""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raystp.cluster.serving import arrow as service_arrow
from raystp.cluster.serving import middleware as service_door
from raystp.cluster.serving.arrow import from_arrow, to_arrow
from raystp.cluster.serving.auth import AccessPolicy, BearerToken, RequestRefused
from raystp.cluster.serving.messages import ImputeRequest, ImputeResponse, RequestLimits, ResponseNeighbours, from_json
from raystp.cluster.serving.middleware import RequestGuard
from raystp.errors import ConfigError

Message = dict[str, Any]
TOKEN = "0123456789abcdef"


class Inside:
    """An application that notes what comes in, and answers `fine`, or as it is told."""

    def __init__(self, status: int = 200, kind: bytes = b"application/json", delay_s: float = 0.0) -> None:
        self.status, self.kind, self.delay_s = status, kind, delay_s
        self.bodies: list[bytes] = []
        self.headers: list[dict[bytes, bytes]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.headers.append(dict(scope["headers"]))
        self.bodies.append((await receive())["body"])
        await asyncio.sleep(self.delay_s)
        if self.status:
            start = {"type": "http.response.start", "status": self.status, "headers": [(b"content-type", self.kind)]}
            await send(start)
            await send({"type": "http.response.body", "body": b"fine"})


def request(path: str = "/v1/impute", **headers: str) -> Message:
    listed = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "path": path, "headers": listed}


async def pass_through(
    guard: RequestGuard, scope: Message, parts: list[bytes], *, pause_s: float = 0.0
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Send a request through the door, its body in parts; return status, headers and body of the answer."""
    left, sent = iter([*parts[:-1], parts[-1]]), []
    count = len(parts)

    async def receive() -> Message:
        nonlocal count
        await asyncio.sleep(pause_s)
        try:
            body = next(left)
        except StopIteration:
            await asyncio.sleep(60)
        count -= 1
        return {"type": "http.request", "body": body, "more_body": count > 0}

    async def send(message: Any) -> None:
        sent.append(message)

    await guard(scope, receive, send)
    start, *rest = sent
    return start["status"], dict(start["headers"]), b"".join(one.get("body", b"") for one in rest)


def through(
    guard: RequestGuard, scope: Message, *parts: bytes, pause_s: float = 0.0
) -> tuple[int, dict[bytes, bytes], Any]:
    status, headers, body = asyncio.run(pass_through(guard, scope, [*parts] or [b""], pause_s=pause_s))
    return status, headers, json.loads(body)["error"] if status >= 400 else body


@pytest.fixture
def token(tmp_path: Path) -> BearerToken:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    return BearerToken(file=str(tmp_path / "token"))


def test_a_request_is_handed_on_whole_whatever_its_parts_were() -> None:
    inside = Inside()
    assert through(RequestGuard(inside, AccessPolicy()), request(), b"a", b"", b"bc")[0] == 200
    assert inside.bodies == [b"abc"]


def test_a_body_that_says_it_is_too_long_is_not_read() -> None:
    inside = Inside()
    status, headers, said = through(
        RequestGuard(inside, AccessPolicy(body_bytes=4)), request(content_length="5"), b"abcde"
    )
    assert (status, inside.bodies) == (413, [])
    assert said == "the body is 5 bytes, at most 4 are read: send fewer tiles at a time, or Arrow"
    assert headers[b"connection"] == b"close"


def test_a_body_that_does_not_say_its_length_is_read_no_further_than_it_may_be_long() -> None:
    inside, taken = Inside(), 0

    def endless() -> Iterator[Message]:
        nonlocal taken
        while True:
            taken += 1
            yield {"type": "http.request", "body": b"x" * 1000, "more_body": True}

    messages, sent = endless(), []

    async def receive() -> Message:
        await asyncio.sleep(0)
        return next(messages)

    async def send(message: Any) -> None:
        sent.append((taken, message))

    guard = RequestGuard(inside, AccessPolicy(body_bytes=10_000))
    began = time.monotonic()
    asyncio.run(guard(request(transfer_encoding="chunked"), receive, send))
    taken_before, start = sent[0]
    assert (start["status"], taken_before, inside.bodies) == (413, 11, [])
    assert taken * 1000 <= service_door.LINGER_BYTES + 12_000  # the rest was dropped, and not for ever
    assert time.monotonic() - began < 5


def test_a_body_that_does_not_come_is_given_up_at_the_deadline() -> None:
    inside = Inside()
    status, _, said = through(
        RequestGuard(inside, AccessPolicy(deadline_s=0.2)), request(content_length="9"), b"a", b"b", pause_s=0.15
    )
    assert (status, inside.bodies) == (408, [])
    assert said == "the request was not all here after 0.2 s: send it faster, or a smaller one"


def test_an_answer_that_is_not_ready_is_given_up_at_the_deadline() -> None:
    status, _, said = through(RequestGuard(Inside(delay_s=5), AccessPolicy(deadline_s=0.1)), request(), b"a")
    assert (status, said) == (504, "no answer was ready after 0.1 s: ask for less, or later")


def test_no_more_requests_are_inside_than_fit_and_the_rest_are_told_to_come_again() -> None:
    guard = RequestGuard(Inside(delay_s=0.2), AccessPolicy(requests=2))

    async def five() -> list[tuple[int, dict[bytes, bytes], bytes]]:
        return await asyncio.gather(*(pass_through(guard, request(), [b"a"]) for _ in range(5)))

    answers = asyncio.run(five())
    assert sorted(status for status, _, _ in answers) == [200, 200, 503, 503, 503]
    assert {headers.get(b"retry-after") for status, headers, _ in answers if status == 503} == {b"1"}
    assert through(guard, request(), b"a")[0] == 200  # all places are free again


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "this service wants a token: send the header `Authorization: Bearer <token>`"),
        ({"authorization": "Basic abc"}, "this service wants a token: send the header `Authorization: Bearer <token>`"),
        ({"authorization": "Bearer "}, "the token is not this service's"),
        ({"authorization": f"Bearer {TOKEN[:-1]}"}, "the token is not this service's"),
        ({"authorization": f"Bearer {TOKEN}x"}, "the token is not this service's"),
    ],
)
def test_nobody_comes_in_without_the_token(token: BearerToken, given: dict[str, str], said: str) -> None:
    inside = Inside()
    status, headers, heard_back = through(RequestGuard(inside, AccessPolicy(token=token)), request(**given), b"a")
    assert (status, heard_back, inside.bodies) == (401, said, [])
    assert headers[b"www-authenticate"] == b'Bearer realm="raystp"'


def test_the_token_opens_and_health_needs_none(token: BearerToken) -> None:
    guard = RequestGuard(Inside(), AccessPolicy(token=token, requests=1))
    assert through(guard, request(authorization=f"bearer {TOKEN}"), b"a")[0] == 200
    assert through(guard, request("/healthz"))[0] == 200
    assert through(guard, request("/v1/info"))[0] == 401


@pytest.mark.parametrize(("text", "word"), [(None, "cannot be read: No such file"), ("short", "holds 5 characters")])
def test_a_token_that_is_none_is_told_before_anything_starts(tmp_path: Path, text: str | None, word: str) -> None:
    if text is not None:
        (tmp_path / "key").write_text(text)
    with pytest.raises(ConfigError, match=word) as caught:
        BearerToken(file=str(tmp_path / "key")).digest()
    assert "short" not in str(caught.value)
    with pytest.raises(ConfigError, match="environment variable NO_SUCH of the token cannot be read: it is not set"):
        BearerToken(env="NO_SUCH").digest()


def test_the_door_goes_into_serves_environment_without_the_token(token: BearerToken) -> None:
    door = AccessPolicy(123, 4, 5.0, token)
    hooks = service_door.hooks(door)
    assert AccessPolicy.from_json(hooks[service_door.DOOR]) == door
    assert TOKEN not in str(hooks)
    module, _, name = hooks[service_door.HOOK].partition(":")
    assert (module, getattr(service_door, name)) == (service_door.__name__, service_door.at_the_door)


@pytest.mark.parametrize(
    ("status", "said"), [(500, "has ended"), (503, "busy or not ready"), (404, "busy or not ready")]
)
def test_what_serve_says_in_plain_words_becomes_a_sentence(status: int, said: str) -> None:
    seen, _, sentence = through(RequestGuard(Inside(status, b"text/plain"), AccessPolicy()), request(), b"a")
    assert seen == 503
    assert said in sentence


def test_a_request_that_nobody_answered_is_told_so() -> None:
    assert through(RequestGuard(Inside(status=0), AccessPolicy()), request(), b"a")[::2] == (
        503,
        "the replica that had this request has ended: send it again",
    )


def test_a_client_steers_nothing_of_serves_own() -> None:
    inside = Inside()
    steering = {"x_request_timeout_seconds": "9999", "x_request_disconnect_disabled": "?1", "x_session_id": "a"}
    steering |= {"serve_multiplexed_model_id": "x", "x_request_id": "a b\x7f", "x_kept": "1"}
    through(RequestGuard(inside, AccessPolicy()), request(**steering), b"a")
    assert inside.headers == [{b"x-kept": b"1"}]


def test_every_request_is_counted_with_its_status() -> None:
    seen: list[int] = []
    guard = RequestGuard(Inside(), AccessPolicy(body_bytes=2), lambda status, _: seen.append(status))
    through(guard, request(), b"a")
    through(guard, request(content_length="3"), b"abc")
    assert seen == [200, 413]


# ---- forms


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "the body is not JSON: EOF while parsing"),
        (b"{", 400, "the body is not JSON: EOF while parsing"),
        (b"\xff\xfe", 400, "the body is not JSON"),
        (b"[" * 100_000, 400, "the body is not JSON: recursion limit exceeded"),
        (b"[]", 422, "the body: "),
        (b"{}", 422, "one of `embeddings`, `pixels`, or `slide` with `region` is wanted, got none"),
        (b'{"embeddings": [], "pixels": []}', 422, "is wanted, got embeddings, pixels"),
        (b'{"slide": "a"}', 422, "is wanted, got slide"),
        (b'{"embeddings": [], "region": {"x": 0, "y": 0}}', 422, "is wanted, got embeddings, region"),
        (b'{"embeddings": [[1, 2], [1]]}', 422, "every tile has a row of one length, seen lengths '1', '2'"),
        (b'{"embeddings": [["1"]]}', 422, "embeddings.0.0: Input should be a valid number"),
        (b'{"embeddings": [[true]]}', 422, "embeddings.0.0: Input should be a valid number"),
        (b'{"embeddings": [1]}', 422, "embeddings.0: Input should be a valid array"),
        (b'{"embeddings": [], "k": 0}', 422, "k: Input should be greater than or equal to 1"),
        (b'{"embeddings": [], "k": 1.5}', 422, "k: Input should be a valid integer"),
        (b'{"embeddings": [], "genes": "A"}', 422, "genes: Input should be a valid array"),
        (b'{"embeddings": [], "gene": ["A"]}', 422, "gene: Extra inputs are not permitted"),
        (b'{"slide": "a", "region": {"x": NaN, "y": 0}}', 422, "region.x: Input should be a finite number"),
        (b'{"slide": "a", "region": {"x": 0, "y": 0, "tiles": [0, 1]}}', 422, "region.tiles.0: "),
        (b'{"embeddings": [' + b"[[]]," * 9 + b"[[]]]}", 422, "; and 5 more"),
    ],
)
def test_what_is_no_question_is_refused_in_a_sentence(body: bytes, status: int, said: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        from_json(body)
    assert caught.value.status == status
    assert said in caught.value.sentence
    assert len(caught.value.sentence) < 700


def test_a_question_in_json_is_heard() -> None:
    asked = from_json(b'{"embeddings": [[1, 2.5]], "genes": ["B", "A"], "k": 3, "spread": true, "without": ["P1"]}')
    assert asked.features is not None
    assert asked.features.tolist() == [[1.0, 2.5]]
    assert (asked.tiles, asked.options.genes, asked.options.k) == (1, ["B", "A"], 3)
    assert (asked.options.weights, asked.options.spread, asked.options.without) == ("mean", True, ["P1"])


@pytest.mark.parametrize(
    ("tiles", "options", "status", "said"),
    [
        (9, {}, 413, "9 tiles were sent, at most 8 are answered at a time"),
        (1, {"k": 6}, 422, "k: 6 neighbours were asked for, at most 5 are searched"),
        (1, {"genes": ["A"] * 5}, 422, "genes: 5 were asked for, at most 4 are answered at a time"),
        (8, {"genes": ["A"] * 4}, 422, "8 tiles x 4 genes are more than 30 values: name fewer of either"),
        (8, {"genes": ["A"] * 3}, 0, ""),
    ],
)
def test_a_question_beyond_the_limits_is_refused(tiles: int, options: dict[str, Any], status: int, said: str) -> None:
    asked = from_json(json.dumps({"embeddings": [[1.0]] * tiles, "k": 1} | options).encode())
    limits = RequestLimits(tiles=8, k=5, genes=4, values=30)
    if not status:
        limits.check(asked, 2)
        return
    with pytest.raises(RequestRefused) as caught:
        limits.check(asked, 2)
    assert (caught.value.status, caught.value.sentence) == (status, said)


# ---- Arrow


def stream(values: np.ndarray, metadata: dict[bytes, bytes] | None = None, **options: Any) -> bytes:
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    table = pa.table({"features": column}).replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=2)
    content: bytes = sink.getvalue().to_pybytes()
    return content


VALUES = np.arange(6, dtype=np.float32).reshape(3, 2)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_a_stream_brings_its_features_and_options(kind: Any) -> None:
    asked = from_arrow(stream(VALUES.astype(kind), {b"raystp": b'{"k": 3}'}), {"genes": "B,A", "spread": "true"})
    assert isinstance(asked, ImputeRequest)
    assert asked.features is not None
    np.testing.assert_array_equal(asked.features, VALUES)
    assert asked.features.dtype == np.float32
    assert (asked.options.k, asked.options.genes, asked.options.spread) == (3, ["B", "A"], True)


@pytest.mark.parametrize(
    ("content", "query", "status", "said"),
    [
        (b"", {}, 400, "the body is no Arrow IPC stream"),
        (b"not arrow at all", {}, 400, "the body is no Arrow IPC stream"),
        (stream(VALUES)[:-40], {}, 400, "the body is no Arrow IPC stream"),
        (stream(VALUES, compression="zstd"), {}, 415, "compressed Arrow streams are not read"),
        (stream(VALUES, compression="lz4"), {}, 415, "compressed Arrow streams are not read"),
        (stream(VALUES.astype(np.int32)), {}, 422, "a fixed-size list of float16, 32 or 64"),
        (stream(VALUES, {b"raystp": b"{"}), {}, 400, "the schema's metadata `raystp` is not JSON"),
        (stream(VALUES, {b"raystp": b"[]"}), {}, 422, "is no object of options"),
        (stream(VALUES), {"k": "many"}, 422, "k: Input should be a valid integer"),
        (stream(VALUES), {"kk": "3"}, 422, "kk: Extra inputs are not permitted"),
    ],
)
def test_a_stream_that_is_amiss_is_refused(content: bytes, query: dict[str, str], status: int, said: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        from_arrow(content, query)
    assert caught.value.status == status
    assert said in caught.value.sentence


def test_a_missing_value_in_a_stream_is_refused() -> None:
    column = pa.array([[1.0, None]], pa.list_(pa.float32(), 2))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.schema([("features", column.type)])) as writer:
        writer.write_batch(pa.record_batch([column], ["features"]))
    with pytest.raises(RequestRefused, match="missing"):
        from_arrow(sink.getvalue().to_pybytes(), {})


def test_a_stream_whose_bytes_are_turned_is_read_or_refused() -> None:
    rng, whole = np.random.default_rng(0), stream(VALUES)
    for _ in range(2000):
        content = bytearray(whole)
        for place in rng.integers(0, len(content), rng.integers(1, 6)):
            content[place] = rng.integers(256)
        with contextlib.suppress(RequestRefused):
            asked = from_arrow(bytes(content), {})
            assert asked.features is not None
            assert asked.features.nbytes <= 4 * len(whole)


def test_an_answer_is_the_same_in_json_and_in_arrow() -> None:
    near = ResponseNeighbours(np.array([[3, 1]]), np.array([[0.5, 0.5]], np.float32), [["A1", "A1"]], [["s3", "s1"]])
    expression = np.array([[0.1, 2.0]], np.float32)
    answered = ImputeResponse(
        ["A", "B"], expression, np.array([0.3], np.float32), np.array([True]), expression / 2, near, np.ones((1, 3))
    )
    told = json.loads(answered.json())
    table = pa.ipc.open_stream(to_arrow(answered)).read_all()
    assert json.loads(table.schema.metadata[service_arrow.OPTIONS]) == {"genes": ["A", "B"]}
    read = {name: table[name].to_pylist() for name in table.column_names}
    assert np.float32(told["expression"]).tolist() == expression.tolist() == read["expression"]
    assert [told[name] for name in ("distance", "far", "spread", "squares")] == [
        read[name] for name in ("distance", "far", "spread", "squares")
    ]
    assert told["neighbours"] == {name: read[name] for name in ("rows", "weights", "sections", "spots")}
