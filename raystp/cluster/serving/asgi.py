"""One HTTP request in ASGI: its body, its response, and how it is refused."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

RETRY_AFTER_S = 1
DRAIN_S, DRAIN_BYTES = 1.0, 64 << 20
"""How long, and how many bytes of, a refused body are read and dropped, so that the client can read the response."""


class RequestRefused(Exception):  # noqa: N818 -- an HTTP response, not a fault of the program
    """A request is refused with an HTTP status and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(eq=False)
class ResponseBuffer:
    """A response on its way to the client; a plain-text error of Serve is held back, to be sent as JSON instead."""

    forward: Send
    on_complete: Callable[["ResponseBuffer"], None]
    """Called once the response is sent; Serve's proxy works for a moment longer."""
    status: int = 0
    held_status: int = 0

    async def send(self, message: Message) -> None:
        """Forward a message, or hold the response back."""
        if message["type"] == "http.response.start":
            if message["status"] >= 400 and not _is_json(message["headers"]):  # noqa: PLR2004 -- HTTP's errors
                self.held_status = message["status"]
            else:
                self.status = message["status"]
        if not self.held_status:
            await self.forward(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self.on_complete(self)

    async def refuse(self, refusal: RequestRefused, unread: Receive | None = None) -> None:
        """Send a refusal; read and drop the `unread` part of the body for a moment, then close the connection."""
        self.status, self.held_status = refusal.status, 0
        content = json.dumps({"error": refusal.message}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        headers += [(b"connection", b"close")] if unread else []
        headers += {
            401: [(b"www-authenticate", b'Bearer realm="raystp"')],
            503: [(b"retry-after", str(RETRY_AFTER_S).encode())],
        }.get(refusal.status, [])
        await self.forward({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self.forward({"type": "http.response.body", "body": content, "more_body": unread is not None})
        if unread:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(_drain(unread), DRAIN_S)
            await self.forward({"type": "http.response.body", "body": b"", "more_body": False})


@dataclass
class RequestBody:
    """A request's body: read completely before the request is forwarded, and never beyond the size limit."""

    source: Receive
    limit_bytes: int
    complete: bool = False
    disconnected: bool = False
    content: bytes | None = b""
    """None once it is passed on."""

    def check_length(self, scope: Scope) -> None:
        """Raise RequestRefused where the client announces too many bytes."""
        length = header(scope, b"content-length")
        if length.isdigit() and int(length) > self.limit_bytes:
            raise self._too_large(f"{int(length):,} bytes")

    async def read(self) -> None:
        """Read the whole body; raise RequestRefused as soon as it is too large."""
        parts, size = [], 0
        while not self.complete:
            message = await self.source()
            if message["type"] == "http.disconnect":
                self.disconnected = True
                return
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            self.complete = not message.get("more_body", False)
            if size > self.limit_bytes:
                raise self._too_large(f"more than {self.limit_bytes:,} bytes")
        self.content = b"".join(parts)

    async def receive(self) -> Message:
        """Return the body once, then what follows it: the client's disconnect."""
        if self.content is None:
            message = await self.source()
            self.disconnected = self.disconnected or message["type"] == "http.disconnect"
            return message
        content, self.content = self.content, None
        return {"type": "http.request", "body": content, "more_body": False}

    async def receive_empty(self) -> Message:
        """Return an empty body once, then what the client sends."""
        if self.content is None:
            return await self.source()
        self.content = None
        return {"type": "http.request", "body": b"", "more_body": False}

    def unread(self, scope: Scope) -> Receive | None:
        """Return the source of the unread part of the body, if there may be one."""
        has_body = header(scope, b"content-length") not in {b"", b"0"} or header(scope, b"transfer-encoding")
        return self.source if has_body and not self.complete else None

    def _too_large(self, size: str) -> RequestRefused:
        msg = f"the body is {size}, the limit is {self.limit_bytes:,}: send fewer tiles per request, or Arrow"
        return RequestRefused(413, msg)


def header(scope: Scope, name: bytes) -> bytes:
    """Return a request's header, or empty bytes; `name` is in lower case."""
    return next((bytes(value) for key, value in scope["headers"] if key == name), b"")


def _is_json(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name.lower() == b"content-type" and value.startswith(b"application/json") for name, value in headers)


async def _drain(receive: Receive) -> None:
    size = 0
    while size < DRAIN_BYTES:
        message = await receive()
        size += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return
