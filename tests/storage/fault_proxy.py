"""A proxy in front of an object store that injects faults; HTTP on loopback, with threads.

`proxy.add("cut", at=1000, times=2)` ends the bodies of the next two GETs early. `proxy.requests` has all requests.
"""

import contextlib
import http.client
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ALWAYS = 1 << 30
HOP = {"connection", "content-length", "transfer-encoding", "server", "date", "keep-alive"}
DRIP_S = 0.05


@dataclass
class Fault:
    """The fault of the next `times` requests of `method`.

    `status` returns the status `at`; `lost` forwards the request, then returns the status `at`; `silent` never returns.
    `cut` and `reset` end the connection after `at` bytes of the body; `short` omits the last `at` bytes and reduces the
    length (of a HEAD too); `flip` changes the byte at `at`; `drip` sends `at` bytes a second. `whole` ignores the
    range; `shift` returns the range that starts `at` bytes later.
    """

    kind: str
    at: int = 0
    method: str = "GET"
    times: int = ALWAYS
    code: str = "Injected"
    """The code in the body of an error."""
    text: str = ""
    """The message in that body, and a header."""


@dataclass(frozen=True)
class Request:
    """One request."""

    method: str
    path: str
    span: str
    """Its `Range` header."""
    version: str
    """Its `If-Match` header."""


@dataclass
class Proxy:
    """One proxy; an `s3://` URI with `query` uses it."""

    upstream: int
    port: int = 0
    latency_s: float = 0.0
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    faults: list[Fault] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    writing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def query(self) -> str:
        return f"?scheme=http&endpoint_override=127.0.0.1:{self.port}&region=us-east-1"

    def add(self, kind: str, at: int = 0, **more: Any) -> None:
        self.faults.append(Fault(kind, at, **more))

    def clear(self) -> None:
        self.faults.clear()
        self.requests.clear()
        self.latency_s = 0.0

    def count(self, method: str) -> int:
        return sum(request.method == method for request in self.requests)

    def take(self, method: str) -> Fault | None:
        """Return the fault of a request, and count it."""
        with self.lock:
            for fault in self.faults:
                if fault.method == method and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None


@contextlib.contextmanager
def running(upstream: int) -> Iterator[Proxy]:
    """Run a proxy in front of the store at that port of this machine."""
    proxy = Proxy(upstream)
    server = _Server(("127.0.0.1", 0), type("Bound", (_Handler,), {"proxy": proxy}))
    proxy.port = int(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield proxy
    proxy.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    # With the default of 5, a 6th connection at once waits a second or more.
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore disconnected clients; print other errors as the base class does."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"
    # The headers and the body are two writes; a client's delayed acknowledgement would hold the second for 40 ms.
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        with self.proxy.lock:
            self.proxy.connections += 1

    def do_GET(self) -> None:
        proxy = self.proxy
        body = self._sent()
        with proxy.lock:
            span, version = self.headers.get("Range", ""), self.headers.get("If-Match", "")
            proxy.requests.append(Request(self.command, self.path, span, version))
        fault = proxy.take(self.command)
        time.sleep(proxy.latency_s)
        with contextlib.suppress(ConnectionError, TimeoutError):
            self._answer(body, fault)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 -- the base class names them so

    def _sent(self) -> bytes:
        """Read the request's body, in chunks or by its length."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while length := int(self.rfile.readline().partition(b";")[0], 16):
            chunks.append(self.rfile.read(length))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return b"".join(chunks)

    def _answer(self, body: bytes, fault: Fault | None) -> None:
        kind = fault.kind if fault else ""
        if fault and kind == "silent":
            self.proxy.closing.wait()
            self.close_connection = True
            return
        if fault and kind == "status":
            self._refuse(fault)
            return
        if kind == "whole":
            del self.headers["Range"]
        if fault and kind == "shift":
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            self.headers.replace_header("Range", f"bytes={int(first) + fault.at}-{int(last) + fault.at}")
        status, headers, content = self._forward(body)
        if fault and kind == "lost":
            self._refuse(fault)
            return
        if fault and kind == "flip" and content:
            content = content[: fault.at] + bytes([content[fault.at] ^ 0xFF]) + content[fault.at + 1 :]
        length = int(headers.get("Content-Length", len(content))) if self.command == "HEAD" else len(content)
        if fault and kind == "short":
            length, content = length - fault.at, content[: len(content) - fault.at]
        self._head(status, headers, length)
        if self.command != "HEAD":
            self._body(content, fault)

    def _forward(self, body: bytes) -> tuple[int, Any, bytes]:
        """Forward the request; writes go one at a time, because moto's put-if-absent is not atomic."""
        guard = self.proxy.writing if self.command in {"PUT", "POST", "DELETE"} else contextlib.nullcontext()
        with guard, contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.proxy.upstream)) as store:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
            store.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
            answer = store.getresponse()
            return answer.status, answer.headers, answer.read()

    def _refuse(self, fault: Fault) -> None:
        content = f"<Error><Code>{fault.code}</Code><Message>{fault.text}</Message></Error>".encode()
        self._head(fault.at, {"Content-Type": "application/xml", "x-amz-request-id": fault.text}, len(content))
        if self.command != "HEAD":
            self.wfile.write(content)

    def _head(self, status: int, headers: Any, length: int) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _body(self, content: bytes, fault: Fault | None) -> None:
        kind, at = (fault.kind, fault.at) if fault else ("", 0)
        if kind == "drip":
            step = max(1, int(at * DRIP_S))
            for start in range(0, len(content), step):
                self.wfile.write(content[start : start + step])
                if self.proxy.closing.wait(DRIP_S):
                    break
            return
        if kind not in {"cut", "reset"}:
            self.wfile.write(content)
            return
        self.wfile.write(content[:at])
        self.close_connection = True
        if kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def log_message(self, *_: Any) -> None:
        """Print nothing."""
