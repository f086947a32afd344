"""The request guard: token, body size, concurrent requests, deadline, and JSON errors."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raystp.cluster.serving import asgi, guard
from raystp.cluster.serving.guard import AccessPolicy, BearerToken, RequestGuard
from raystp.errors import ConfigError

Message = dict[str, Any]
TOKEN = "0123456789abcdef"


class StubApp:
    """An application that records its requests and responds `ok`, or as configured."""

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
            await send({"type": "http.response.body", "body": b"ok"})


def request(path: str = "/v1/impute", **headers: str) -> Message:
    listed = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "path": path, "headers": listed}


async def send_async(
    middleware: RequestGuard, scope: Message, parts: list[bytes], *, pause_s: float = 0.0
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Send a request, its body in parts; return status, headers and body of the response."""
    remaining, sent = iter(parts), []
    count = len(parts)

    async def receive() -> Message:
        nonlocal count
        await asyncio.sleep(pause_s)
        try:
            body = next(remaining)
        except StopIteration:
            await asyncio.sleep(60)
        count -= 1
        return {"type": "http.request", "body": body, "more_body": count > 0}

    async def send(message: Any) -> None:
        sent.append(message)

    await middleware(scope, receive, send)
    start, *rest = sent
    return start["status"], dict(start["headers"]), b"".join(one.get("body", b"") for one in rest)


def send_request(
    middleware: RequestGuard, scope: Message, *parts: bytes, pause_s: float = 0.0
) -> tuple[int, dict[bytes, bytes], Any]:
    """Send a request; return status, headers, and the body or, from 400, the error message."""
    status, headers, body = asyncio.run(send_async(middleware, scope, [*parts] or [b""], pause_s=pause_s))
    return status, headers, json.loads(body)["error"] if status >= 400 else body


@pytest.fixture
def token(tmp_path: Path) -> BearerToken:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    return BearerToken(file=str(tmp_path / "token"))


def test_a_request_is_forwarded_with_its_complete_body() -> None:
    app = StubApp()
    assert send_request(RequestGuard(app, AccessPolicy()), request(), b"a", b"", b"bc")[0] == 200
    assert app.bodies == [b"abc"]


def test_a_body_with_too_large_a_content_length_is_not_read() -> None:
    app = StubApp()
    status, headers, error = send_request(
        RequestGuard(app, AccessPolicy(body_bytes=4)), request(content_length="5"), b"abcde"
    )
    assert (status, app.bodies) == (413, [])
    assert error == "the body is 5 bytes, the limit is 4: send fewer tiles per request, or Arrow"
    assert headers[b"connection"] == b"close"


def test_a_body_without_a_length_is_read_up_to_the_limit() -> None:
    app, received = StubApp(), 0

    def endless() -> Iterator[Message]:
        nonlocal received
        while True:
            received += 1
            yield {"type": "http.request", "body": b"x" * 1000, "more_body": True}

    messages, sent = endless(), []

    async def receive() -> Message:
        await asyncio.sleep(0)
        return next(messages)

    async def send(message: Any) -> None:
        sent.append((received, message))

    middleware = RequestGuard(app, AccessPolicy(body_bytes=10_000))
    start = time.monotonic()
    asyncio.run(middleware(request(transfer_encoding="chunked"), receive, send))
    received_before, response = sent[0]
    assert (response["status"], received_before, app.bodies) == (413, 11, [])
    assert received * 1000 <= asgi.DRAIN_BYTES + 12_000  # the rest is dropped, with a limit too
    assert time.monotonic() - start < 5


def test_an_incomplete_body_gets_408_at_the_deadline() -> None:
    app = StubApp()
    status, _, error = send_request(
        RequestGuard(app, AccessPolicy(deadline_s=0.2)), request(content_length="9"), b"a", b"b", pause_s=0.15
    )
    assert (status, app.bodies) == (408, [])
    assert error == "the request body was incomplete after 0.2 s: send fewer tiles per request"


def test_a_late_response_becomes_504_at_the_deadline() -> None:
    status, _, error = send_request(RequestGuard(StubApp(delay_s=5), AccessPolicy(deadline_s=0.1)), request(), b"a")
    assert (status, error) == (504, "no result within the deadline of 0.1 s: send fewer tiles, or retry later")


def test_requests_beyond_the_concurrency_limit_get_503() -> None:
    middleware = RequestGuard(StubApp(delay_s=0.2), AccessPolicy(requests=2))

    async def five() -> list[tuple[int, dict[bytes, bytes], bytes]]:
        return await asyncio.gather(*(send_async(middleware, request(), [b"a"]) for _ in range(5)))

    responses = asyncio.run(five())
    assert sorted(status for status, _, _ in responses) == [200, 200, 503, 503, 503]
    assert {headers.get(b"retry-after") for status, headers, _ in responses if status == 503} == {b"1"}
    assert send_request(middleware, request(), b"a")[0] == 200  # finished requests no longer count


NO_TOKEN = "no bearer token: send the header `Authorization: Bearer <token>`"


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, NO_TOKEN),
        ({"authorization": "Basic abc"}, NO_TOKEN),
        ({"authorization": "Bearer "}, "wrong bearer token"),
        ({"authorization": f"Bearer {TOKEN[:-1]}"}, "wrong bearer token"),
        ({"authorization": f"Bearer {TOKEN}x"}, "wrong bearer token"),
    ],
)
def test_a_request_without_the_token_gets_401(token: BearerToken, headers: dict[str, str], message: str) -> None:
    app = StubApp()
    status, received, error = send_request(RequestGuard(app, AccessPolicy(token=token)), request(**headers), b"a")
    assert (status, error, app.bodies) == (401, message, [])
    assert received[b"www-authenticate"] == b'Bearer realm="raystp"'


def test_the_token_is_accepted_and_health_checks_need_none(token: BearerToken) -> None:
    middleware = RequestGuard(StubApp(), AccessPolicy(token=token, requests=1))
    assert send_request(middleware, request(authorization=f"bearer {TOKEN}"), b"a")[0] == 200
    assert send_request(middleware, request("/healthz"))[0] == 200
    assert send_request(middleware, request("/v1/info"))[0] == 401


@pytest.mark.parametrize(
    ("text", "message"), [(None, "cannot be read: No such file"), ("s3cr3", "has 5 characters, at least 16 are needed")]
)
def test_a_missing_or_short_token_is_a_config_error(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "key").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        BearerToken(file=str(tmp_path / "key")).digest()
    assert "s3cr3" not in str(caught.value)
    with pytest.raises(ConfigError, match="token environment variable NO_SUCH cannot be read: not set"):
        BearerToken(env="NO_SUCH").digest()


def test_the_proxys_environment_holds_the_policy_but_not_the_token(token: BearerToken) -> None:
    policy = AccessPolicy(123, 4, 5.0, token)
    environment = guard.proxy_environment(policy)
    assert AccessPolicy.from_json(environment[guard.POLICY_VARIABLE]) == policy
    assert TOKEN not in str(environment)
    module, _, name = environment[guard.HOOK_VARIABLE].partition(":")
    assert (module, getattr(guard, name)) == (guard.__name__, guard.proxy_middleware)


@pytest.mark.parametrize(
    ("status", "message"), [(500, "the replica that had this request died"), (503, "busy or not"), (404, "busy or not")]
)
def test_a_plain_text_error_of_serve_becomes_json(status: int, message: str) -> None:
    received, _, error = send_request(RequestGuard(StubApp(status, b"text/plain"), AccessPolicy()), request(), b"a")
    assert received == 503
    assert message in error


def test_a_request_without_a_response_gets_503() -> None:
    assert send_request(RequestGuard(StubApp(status=0), AccessPolicy()), request(), b"a")[::2] == (
        503,
        "the replica that had this request died: send the request again",
    )


def test_headers_that_control_serve_are_removed() -> None:
    app = StubApp()
    headers = {"x_request_timeout_seconds": "9999", "x_request_disconnect_disabled": "?1", "x_session_id": "a"}
    headers |= {"serve_multiplexed_model_id": "x", "x_request_id": "a b\x7f", "x_kept": "1"}
    send_request(RequestGuard(app, AccessPolicy()), request(**headers), b"a")
    assert app.headers == [{b"x-kept": b"1"}]


def test_each_request_is_recorded_with_its_status() -> None:
    recorded: list[int] = []
    middleware = RequestGuard(StubApp(), AccessPolicy(body_bytes=2), lambda status, _: recorded.append(status))
    send_request(middleware, request(), b"a")
    send_request(middleware, request(content_length="3"), b"abc")
    assert recorded == [200, 413]
