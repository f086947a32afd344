"""The service's door: who may come in, how many at a time, how much they may bring, and how long it may take.

An ASGI application in front of another. It stands twice: in Serve's HTTP proxy, which would else read a body of any
size into memory and let the client set the timeout (`at_the_door`, Serve's own hook), and in each replica, where it
holds whatever the proxy was told. A request is handed on whole, so a slow client never holds a replica. What is refused
is a sentence in JSON, `{"error": ...}`; so is what Serve itself says of replicas that are busy or gone.
"""

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from starlette.middleware import Middleware

from raystp.cluster.serving.auth import AccessPolicy, RequestRefused

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HOOK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
"""Serve's own variable: a function that gives what stands in front of its proxy's application."""
DOOR = "RAYSTP_SERVE_DOOR"
"""The door as JSON, beside Serve's hook, which takes no arguments. It holds no token, only where one is."""

OPEN = {"/healthz", "/readyz", "/-/healthz"}
"""Paths that need no token and no place in the queue, and whose body is not read."""
SERVES_OWN = ("x-request-timeout-seconds", "x-request-disconnect-disabled", "serve-multiplexed-model-id")
"""Headers by which a client would set Serve's timeouts and choose its replica."""
REQUEST_ID = re.compile(rb"[\w.-]{1,64}")
RETRY_AFTER_S = 1
LINGER_S, LINGER_BYTES = 1.0, 64 << 20
"""How long, and for how much, a refused body is read and dropped, so that its sender reads the refusal."""


@dataclass(eq=False)
class ResponseBuffer:
    """What is sent; a plain word of Serve's own (429, 500, 503 ...) is held back, to be said as a sentence."""

    send_on: Send
    ended: Callable[["ResponseBuffer"], None]
    """Called once all is sent: Serve's proxy goes on for a moment after that."""
    status: int = 0
    held: int = 0

    async def send(self, message: Message) -> None:
        """Send on, or hold back."""
        if message["type"] == "http.response.start":
            if message["status"] >= 400 and not _is_json(message["headers"]):  # noqa: PLR2004 -- HTTP's errors
                self.held = message["status"]
            else:
                self.status = message["status"]
        if not self.held:
            await self.send_on(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self.ended(self)

    async def refuse(self, status: int, sentence: str, drain: Receive | None = None) -> None:
        """Send a refusal; with `drain`, read and drop for a moment what the client still sends, then close."""
        self.status, self.held = status, 0
        content = json.dumps({"error": sentence}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        headers += [(b"connection", b"close")] if drain else []
        headers += {
            401: [(b"www-authenticate", b'Bearer realm="raystp"')],
            503: [(b"retry-after", str(RETRY_AFTER_S).encode())],
        }.get(status, [])
        await self.send_on({"type": "http.response.start", "status": status, "headers": headers})
        await self.send_on({"type": "http.response.body", "body": content, "more_body": drain is not None})
        if drain:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(_drained(drain), LINGER_S)
            await self.send_on({"type": "http.response.body", "body": b"", "more_body": False})


@dataclass
class RequestGuard:
    """The door, in front of an application."""

    app: App
    door: AccessPolicy
    seen: Callable[[int, float], None] = lambda _status, _seconds: None
    """Told the status and the seconds of every request."""
    inside: set[ResponseBuffer] = field(default_factory=set)
    key: bytes | None = field(init=False)

    def __post_init__(self) -> None:
        self.key = self.door.token.digest() if self.door.token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        began, reply, brought = (
            time.monotonic(),
            ResponseBuffer(send, self.inside.discard),
            RequestBody(receive, self.door.body_bytes),
        )
        try:
            async with asyncio.timeout(self.door.deadline_s) as clock:
                await self._let_in(scope, brought, reply)
        except RequestRefused as refusal:
            await reply.refuse(refusal.status, refusal.sentence, brought.rest(scope))
        except TimeoutError:
            if not clock.expired():
                raise
        finally:  # also where Serve raises: who asked is told in any case
            if not reply.status and not brought.gone:
                await reply.refuse(
                    *self._said(reply.held, late=clock.expired(), whole=brought.whole), brought.rest(scope)
                )
            self.seen(reply.status, time.monotonic() - began)

    async def _let_in(self, scope: Scope, brought: "RequestBody", reply: ResponseBuffer) -> None:
        if scope["path"] in OPEN:
            await self.app(_without(scope), brought.nothing, reply.send)
            return
        self._check_token(scope)
        brought.check_length(scope)
        if len(self.inside) >= self.door.requests:
            msg = f"{self.door.requests} requests are being answered, which is all that fit: try again in a second"
            raise RequestRefused(503, msg)
        self.inside.add(reply)
        try:
            await brought.read()
            if not brought.gone:
                await self.app(_without(scope), brought.receive, reply.send)
        finally:
            self.inside.discard(reply)

    def _check_token(self, scope: Scope) -> None:
        if self.key is None:
            return
        scheme, _, given = _header(scope, b"authorization").partition(b" ")
        if scheme.lower() != b"bearer":
            msg = "this service wants a token: send the header `Authorization: Bearer <token>`"
            raise RequestRefused(401, msg)
        if not hmac.compare_digest(hashlib.sha256(given.strip()).digest(), self.key):
            msg = "the token is not this service's"
            raise RequestRefused(401, msg)

    def _said(self, held: int, *, late: bool, whole: bool) -> tuple[int, str]:
        """Return what is said of a request that nobody answered, or that Serve answered in plain words."""
        if late and not whole:
            return (
                408,
                f"the request was not all here after {self.door.deadline_s:g} s: send it faster, or a smaller one",
            )
        if late or held == 408:  # noqa: PLR2004 -- Serve's word for its own deadline
            return 504, f"no answer was ready after {self.door.deadline_s:g} s: ask for less, or later"
        if held in {0, 500}:
            return 503, "the replica that had this request has ended: send it again"
        return 503, "the service is busy or not ready: try again in a second"


@dataclass
class RequestBody:
    """A request's body, read whole before it is handed on, and no further than it may be long."""

    source: Receive
    most: int
    whole: bool = False
    gone: bool = False
    content: bytes | None = b""

    def check_length(self, scope: Scope) -> None:
        """Raise Refused where the client says that it is going to send too much."""
        said = _header(scope, b"content-length")
        if said.isdigit() and int(said) > self.most:
            raise self._too_long(f"{int(said):,} bytes")

    async def read(self) -> None:
        """Read all of it; raises Refused as soon as it is too long."""
        parts, count = [], 0
        while not self.whole:
            message = await self.source()
            if message["type"] == "http.disconnect":
                self.gone = True
                return
            parts.append(message.get("body", b""))
            count += len(parts[-1])
            self.whole = not message.get("more_body", False)
            if count > self.most:
                raise self._too_long(f"more than {self.most:,} bytes")
        self.content = b"".join(parts)

    async def receive(self) -> Message:
        """Give the body once, then what comes after it: the client's leaving."""
        if self.content is None:
            message = await self.source()
            self.gone = self.gone or message["type"] == "http.disconnect"
            return message
        content, self.content = self.content, None
        return {"type": "http.request", "body": content, "more_body": False}

    async def nothing(self) -> Message:
        """Give no body."""
        if self.content is None:
            return await self.source()
        self.content = None
        return {"type": "http.request", "body": b"", "more_body": False}

    def rest(self, scope: Scope) -> Receive | None:
        """Return where the unread rest comes from, if there may be one."""
        announced = _header(scope, b"content-length") not in {b"", b"0"} or _header(scope, b"transfer-encoding")
        return self.source if announced and not self.whole else None

    def _too_long(self, seen: str) -> RequestRefused:
        return RequestRefused(
            413, f"the body is {seen}, at most {self.most:,} are read: send fewer tiles at a time, or Arrow"
        )


def at_the_door() -> list[Middleware]:
    """Return what Serve's proxy puts in front of itself; called in its process, by the name in `HOOK`."""
    from raystp.cluster.serving import metrics as service_meters  # noqa: PLC0415 -- uvicorn's server, and Ray's metrics
    from raystp.cluster.serving import timeouts as service_clock  # noqa: PLC0415 -- uvicorn's server, and Ray's metrics

    door = AccessPolicy.from_json(os.environ[DOOR])
    service_clock.install(door.deadline_s)
    return [Middleware(RequestGuard, door=door, seen=service_meters.ray_requests())]


def hooks(door: AccessPolicy) -> dict[str, str]:
    """Return the environment of Serve's controller, which its proxies inherit."""
    return {HOOK: f"{__name__}:{at_the_door.__name__}", DOOR: door.to_json()}


def _without(scope: Scope) -> Scope:
    """Return a request without the headers that would steer Serve."""
    kept = [(name, value) for name, value in scope["headers"] if _is_harmless(name, value)]
    return {**scope, "headers": kept}


def _is_harmless(name: bytes, value: bytes) -> bool:
    if name == b"x-request-id":
        return REQUEST_ID.fullmatch(value) is not None
    plain = name.decode("latin-1").lower().replace("_", "-")
    return plain not in SERVES_OWN and "session-id" not in plain


def _header(scope: Scope, wanted: bytes) -> bytes:
    return next((bytes(value) for name, value in scope["headers"] if name == wanted), b"")


def _is_json(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name.lower() == b"content-type" and value.startswith(b"application/json") for name, value in headers)


async def _drained(receive: Receive) -> None:
    count = 0
    while count < LINGER_BYTES:
        message = await receive()
        count += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return
