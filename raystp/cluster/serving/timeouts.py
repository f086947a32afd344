"""A clock on each connection of Serve's proxy: whoever is slower than the deadline is cut off.

uvicorn waits for a request's first byte, for its head, and for the client to take its answer, for ever; an application
behind it sees nothing of that. A connection is cut when the clock runs out and it is neither answered nor at rest
between two requests (which uvicorn's own keep-alive ends), or when its head grows too long.
"""

import asyncio
import json
from typing import Any

from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

GRACE_S = 5.0
"""Beyond the door's deadline, within which the door itself answers."""
MOST_HEAD = 64 << 10
"""Bytes of a request line and its headers."""


class TimedProtocol(HttpToolsProtocol):
    """uvicorn's connection, with a clock."""

    longest_s = 30.0 + GRACE_S

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Start the clock: nothing has come yet."""
        super().connection_made(transport)
        self._busy, self._in_head, self._head = True, False, 0
        self._clock: asyncio.TimerHandle | None = None
        self._start()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; a head that does not end ends the connection."""
        if self._clock is None:
            self._start()
        super().data_received(data)
        self._head = self._head + len(data) if self._in_head else 0
        if self._head > MOST_HEAD:
            self.transport.abort()

    def on_message_begin(self) -> None:
        """Begin a request, and its time."""
        super().on_message_begin()
        self._busy, self._in_head, self._head = True, True, 0
        self._start()

    def on_headers_complete(self) -> None:
        """Note that the head is all there."""
        self._in_head = False
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Note that the request is answered; the clock goes on until the client has taken the answer."""
        super().on_response_complete()
        self._busy = False

    def send_400_response(self, msg: str) -> None:
        """Say in JSON, too, that a request is no HTTP at all, and hang up."""
        content = json.dumps({"error": f"{msg.rstrip('.')}: it does not keep to HTTP/1.1"}).encode()
        head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: "
        self.transport.write(f"{head}{len(content)}\r\n\r\n".encode() + content)
        self.transport.close()

    def _start(self) -> None:
        self._stop()
        self._clock = self.loop.call_later(self.longest_s, self._late)

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _late(self) -> None:
        self._clock = None
        at_rest = not self._busy and self.timeout_keep_alive_task is not None
        if not at_rest or self.transport.get_write_buffer_size():
            self.transport.abort()


def install(deadline_s: float) -> None:
    """Make it what uvicorn uses in this process: Serve asks for `auto`, and has no option for another."""
    protocols: dict[str, Any] = HTTP_PROTOCOLS
    TimedProtocol.longest_s = deadline_s + GRACE_S
    protocols["auto"] = f"{__name__}:{TimedProtocol.__name__}"
