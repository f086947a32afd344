"""A stand-in for Google Cloud Storage and Azure Blob Storage: objects in memory, over HTTP on loopback.

It has the requests that obstore sends, with the conditions that both services document: `if-match`,
`if-none-match: *` and `x-goog-if-generation-match: 0`.
"""

import contextlib
import datetime as dt
import re
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

METADATA = ("x-goog-meta-", "x-ms-meta-")


@dataclass(frozen=True)
class Stored:
    content: bytes
    metadata: dict[str, str]
    etag: str = field(default_factory=lambda: f'"{uuid.uuid4().hex}"')
    changed: float = field(default_factory=time.time)

    def headers(self) -> dict[str, str]:
        return {
            "ETag": self.etag,
            "Last-Modified": formatdate(self.changed, usegmt=True),
            "x-goog-generation": str(int(self.changed * 1e6)),
            "x-ms-blob-type": "BlockBlob",
            "x-ms-creation-time": formatdate(self.changed, usegmt=True),
            "Content-Type": "application/octet-stream",
            **self.metadata,
        }


@dataclass
class FakeStore:
    """All buckets and containers of one server; `requests` are `METHOD path range if-match`."""

    port: int = 0
    objects: dict[str, Stored] = field(default_factory=dict)
    blocks: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextlib.contextmanager
def running() -> Iterator[FakeStore]:
    store = FakeStore()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"store": store}))
    store.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield store
    server.shutdown()
    server.server_close()
    thread.join()


class _Handler(BaseHTTPRequestHandler):
    store: FakeStore
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        target = urlsplit(self.path)
        path, query = (
            unquote(target.path),
            {name: values[0] for name, values in parse_qs(target.query, keep_blank_values=True).items()},
        )
        with self.store.lock:
            request = [self.command, path, self.headers.get("Range") or "", self.headers.get("If-Match") or ""]
            self.store.requests.append(" ".join(request))
            if query.get("comp") == "list" or "list-type" in query:
                self._list(path, query)
            elif query.get("comp") == "batch":
                self._batch(body)
            elif self.command == "PUT":
                self._put(path, query, body)
            elif self.command == "POST":
                self._multipart(path, query, body)
            elif path not in self.store.objects:
                self._answer(404)
            elif self.command == "DELETE":
                del self.store.objects[path]
                self._answer(204)
            else:
                self._get(self.store.objects[path])

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 -- the base class names them so

    def _put(self, path: str, query: dict[str, str], body: bytes) -> None:
        part = query.get("blockid") or query.get("partNumber")
        if part is not None:
            self.store.blocks[part] = body
            self._answer(201, {"ETag": f'"{part}"'})
            return
        if query.get("comp") == "blocklist":
            ids = re.findall(r"<Uncommitted>(.*?)</Uncommitted>", body.decode())
            body = b"".join(self.store.blocks[one] for one in ids)
        is_new = "*" in (self.headers.get("If-None-Match") or "")
        if path in self.store.objects and is_new:
            self._answer(409, {"x-ms-error-code": "BlobAlreadyExists"})
        elif path in self.store.objects and self.headers.get("x-goog-if-generation-match") == "0":
            self._answer(412)
        else:
            metadata = {name: value for name, value in self.headers.items() if name.lower().startswith(METADATA)}
            self.store.objects[path] = Stored(body, metadata)
            self._answer(201, self.store.objects[path].headers())

    def _get(self, stored: Stored) -> None:
        match = self.headers.get("If-Match")
        span = self.headers.get("Range") or self.headers.get("x-ms-range")
        if match is not None and match != stored.etag:
            self._answer(412)
        elif span is None:
            self._answer(200, stored.headers(), stored.content)
        else:
            first, _, last = span.removeprefix("bytes=").partition("-")
            if int(first) >= len(stored.content):
                self._answer(416)
                return
            content = stored.content[int(first) : int(last or len(stored.content)) + 1]
            end = int(first) + len(content) - 1
            headers = stored.headers() | {"Content-Range": f"bytes {first}-{end}/{len(stored.content)}"}
            self._answer(206, headers, content)

    def _multipart(self, path: str, query: dict[str, str], body: bytes) -> None:
        """Begin or complete Google's upload in parts."""
        if "uploads" in query:
            content = b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
            self._answer(200, content=content)
            return
        numbers = re.findall(r"<PartNumber>(\d+)</PartNumber>", body.decode())
        self.store.objects[path] = Stored(b"".join(self.store.blocks[number] for number in numbers), {})
        result = f"<ETag>{escape(self.store.objects[path].etag)}</ETag>"
        content = f"<CompleteMultipartUploadResult>{result}</CompleteMultipartUploadResult>".encode()
        self._answer(200, self.store.objects[path].headers(), content)

    def _batch(self, body: bytes) -> None:
        """Delete the blobs of an Azure batch."""
        boundary, parts = "batchresponse_0", ""
        for number, path in enumerate(re.findall(r"DELETE (/\S+?)(?:\?\S*)? HTTP", body.decode())):
            found = self.store.objects.pop(unquote(path), None)
            status = "202 Accepted" if found else "404 The specified blob does not exist."
            parts += f"--{boundary}\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\n"
            parts += f"HTTP/1.1 {status}\r\nx-ms-request-id: 0\r\n\r\n\r\n"
        headers = {"Content-Type": f"multipart/mixed; boundary={boundary}"}
        self._answer(202, headers, f"{parts}--{boundary}--".encode())

    def _list(self, path: str, query: dict[str, str]) -> None:
        """List a bucket or container, in XML that both services' clients read."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        found: dict[str, Stored] = {}
        folders = set()
        for key, stored in sorted(self.store.objects.items()):
            name = key.removeprefix(f"{path}/")
            below = name.removeprefix(prefix)
            if name == key or not name.startswith(prefix):
                continue
            if delimiter and delimiter in below:
                folders.add(prefix + below.partition(delimiter)[0] + delimiter)
            else:
                found[name] = stored
        is_azure = query.get("comp") == "list"
        listed = "".join((_blob if is_azure else _contents)(name, stored) for name, stored in found.items())
        tag, inner = ("BlobPrefix", "Name") if is_azure else ("CommonPrefixes", "Prefix")
        listed += "".join(f"<{tag}><{inner}>{escape(name)}</{inner}></{tag}>" for name in sorted(folders))
        body = (
            f"<EnumerationResults><Blobs>{listed}</Blobs><NextMarker /></EnumerationResults>"
            if is_azure
            else f"<ListBucketResult>{listed}</ListBucketResult>"
        )
        self._answer(200, {"Content-Type": "application/xml"}, body.encode())

    def _answer(self, status: int, headers: dict[str, str] | None = None, content: bytes = b"") -> None:
        self.send_response_only(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("x-ms-request-id", "0")
        self.send_header("x-ms-version", "2023-11-03")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def _blob(name: str, stored: Stored) -> str:
    changed = formatdate(stored.changed, usegmt=True)
    return (
        f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{changed}</Last-Modified>"
        f"<Content-Length>{len(stored.content)}</Content-Length><Content-Type>a/b</Content-Type>"
        f"<Etag>{escape(stored.etag)}</Etag></Properties></Blob>"
    )


def _contents(name: str, stored: Stored) -> str:
    changed = dt.datetime.fromtimestamp(stored.changed, dt.UTC).isoformat()
    return (
        f"<Contents><Key>{escape(name)}</Key><LastModified>{changed}</LastModified>"
        f"<Size>{len(stored.content)}</Size><ETag>{escape(stored.etag)}</ETag></Contents>"
    )
