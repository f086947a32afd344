"""Authentication and limits of the service: bearer token, body size, concurrent requests and deadline.

`RequestGuard` is ASGI middleware. It runs in Serve's HTTP proxy, because the proxy would otherwise read a body of any
size into memory and accept a timeout from the client. It runs again in each replica, because a deployed config may
lack the proxy's hook. A request is forwarded only when its body is complete, so a slow client never occupies a
replica. Every refusal is JSON, `{"error": ...}`; plain-text errors of Serve (busy or dead replicas) are replaced too.

Slow request headers are not covered: uvicorn has no timeout for them. Use the reverse proxy in `infra/nginx`.
"""

import asyncio
import hashlib
import hmac
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from starlette.middleware import Middleware

from raystp.cluster.serving.asgi import (
    RETRY_AFTER_S,
    App,
    Receive,
    RequestBody,
    RequestRefused,
    ResponseBuffer,
    Scope,
    Send,
    header,
)
from raystp.errors import ConfigError

HOOK_VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
"""Serve's variable: import path of a function that returns middleware for the proxy."""
POLICY_VARIABLE = "RAYSTP_SERVE_ACCESS"
"""The policy as JSON, for the hook, which takes no arguments. It has the location of the token, never the token."""

MIN_TOKEN_LENGTH = 16
PUBLIC_PATHS = {"/healthz", "/readyz", "/-/healthz"}
"""Paths that need no token, do not count as concurrent requests, and whose body is not read."""
SERVE_HEADERS = ("x-request-timeout-seconds", "x-request-disconnect-disabled", "serve-multiplexed-model-id")
"""Headers that set Serve's timeouts or choose the replica; removed from a client's request."""
REQUEST_ID = re.compile(rb"[\w.-]{1,64}")


@dataclass(frozen=True)
class BearerToken:
    """Where to read the bearer token from: a file or an environment variable."""

    file: str | None = None
    env: str | None = None

    def digest(self) -> bytes:
        """Return the token's sha256; raise ConfigError for a missing or short token."""
        source = f"token file {self.file}" if self.file else f"token environment variable {self.env}"
        try:
            text = Path(self.file).read_text(encoding="utf-8") if self.file else os.environ[self.env or ""]
        except (OSError, KeyError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not set, or not UTF-8 text"
            advice = "create one with `openssl rand -hex 32`" if self.file else "export it where the service starts"
            msg = f"{source} cannot be read: {reason}; {advice}"
            raise ConfigError(msg) from None
        if len(text.strip()) < MIN_TOKEN_LENGTH:
            msg = (
                f"{source} has {len(text.strip())} characters, at least {MIN_TOKEN_LENGTH} are needed: "
                "create one with `openssl rand -hex 32`"
            )
            raise ConfigError(msg)
        return hashlib.sha256(text.strip().encode()).digest()


@dataclass(frozen=True)
class AccessPolicy:
    """Which requests are accepted."""

    body_bytes: int = 16 << 20
    requests: int = 64
    """Concurrent requests. Times `body_bytes`, this bounds the memory for bodies."""
    deadline_s: float = 30.0
    token: BearerToken | None = None

    def to_json(self) -> str:
        """Return the policy as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "AccessPolicy":
        """Return the policy that `to_json` wrote."""
        values = json.loads(text)
        return cls(**values | {"token": BearerToken(**values["token"]) if values["token"] else None})


@dataclass
class RequestGuard:
    """Middleware that applies an AccessPolicy to an application."""

    app: App
    policy: AccessPolicy
    record: Callable[[int, float], None] = lambda _status, _seconds: None
    """Called with the status and the seconds of every request."""
    active: set[ResponseBuffer] = field(default_factory=set)
    token_digest: bytes | None = field(init=False)

    def __post_init__(self) -> None:
        self.token_digest = self.policy.token.digest() if self.policy.token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        start = time.monotonic()
        response, body = ResponseBuffer(send, self.active.discard), RequestBody(receive, self.policy.body_bytes)
        try:
            async with asyncio.timeout(self.policy.deadline_s) as deadline:
                await self._forward(scope, body, response)
        except RequestRefused as refusal:
            await response.refuse(refusal, body.unread(scope))
        except TimeoutError:
            if not deadline.expired():
                raise
        finally:  # also where Serve raises: the client gets a response in any case
            if not response.status and not body.disconnected:
                await response.refuse(
                    self._failure(response.held_status, expired=deadline.expired(), complete=body.complete),
                    body.unread(scope),
                )
            self.record(response.status, time.monotonic() - start)

    async def _forward(self, scope: Scope, body: "RequestBody", response: ResponseBuffer) -> None:
        if scope["path"] in PUBLIC_PATHS:
            await self.app(_without_serve_headers(scope), body.receive_empty, response.send)
            return
        self._check_token(scope)
        body.check_length(scope)
        if len(self.active) >= self.policy.requests:
            msg = f"{self.policy.requests} requests are active, the most that are accepted: retry in {RETRY_AFTER_S} s"
            raise RequestRefused(503, msg)
        self.active.add(response)
        try:
            await body.read()
            if not body.disconnected:
                await self.app(_without_serve_headers(scope), body.receive, response.send)
        finally:
            self.active.discard(response)

    def _check_token(self, scope: Scope) -> None:
        if self.token_digest is None:
            return
        scheme, _, token = header(scope, b"authorization").partition(b" ")
        if scheme.lower() != b"bearer":
            raise RequestRefused(401, "no bearer token: send the header `Authorization: Bearer <token>`")
        if not hmac.compare_digest(hashlib.sha256(token.strip()).digest(), self.token_digest):
            raise RequestRefused(401, "wrong bearer token")

    def _failure(self, held_status: int, *, expired: bool, complete: bool) -> RequestRefused:
        """Return the refusal for a request without a response, or with a plain-text error of Serve."""
        deadline = f"{self.policy.deadline_s:g} s"
        if expired and not complete:
            return RequestRefused(
                408, f"the request body was incomplete after {deadline}: send fewer tiles per request"
            )
        if expired or held_status == 408:  # noqa: PLR2004 -- Serve's status for its own deadline
            return RequestRefused(504, f"no result within the deadline of {deadline}: send fewer tiles, or retry later")
        if held_status in {0, 500}:
            return RequestRefused(503, "the replica that had this request died: send the request again")
        return RequestRefused(503, f"the service is busy or not ready: retry in {RETRY_AFTER_S} s")


def proxy_middleware() -> list[Middleware]:
    """Return the middleware of Serve's proxy; Serve calls this in the proxy's process (see HOOK_VARIABLE)."""
    from raystp.cluster.serving.metrics import record_proxy_request  # noqa: PLC0415 -- creates Ray metrics

    policy = AccessPolicy.from_json(os.environ[POLICY_VARIABLE])
    return [Middleware(RequestGuard, policy=policy, record=record_proxy_request())]


def proxy_environment(policy: AccessPolicy) -> dict[str, str]:
    """Return the environment of Serve's controller, which its proxies inherit."""
    return {HOOK_VARIABLE: f"{__name__}:{proxy_middleware.__name__}", POLICY_VARIABLE: policy.to_json()}


def _without_serve_headers(scope: Scope) -> Scope:
    headers = [(name, value) for name, value in scope["headers"] if not _controls_serve(name, value)]
    return {**scope, "headers": headers}


def _controls_serve(name: bytes, value: bytes) -> bool:
    if name == b"x-request-id":
        return REQUEST_ID.fullmatch(value) is None
    plain = name.decode("latin-1").lower().replace("_", "-")
    return plain in SERVE_HEADERS or "session-id" in plain
