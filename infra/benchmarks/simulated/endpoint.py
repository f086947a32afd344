"""A small S3 server for benchmarks with millions of requests: one process, objects in one file, lists from memory.

    PYTHONPATH=infra/benchmarks python -m simulated.endpoint FOLDER

It prints its port on stdout, and its counts of requests as JSON at `GET /-/requests`. It knows what raystp sends: PUT
(put-if-absent too), GET of ranges, HEAD, DELETE, deletion of many, lists of a page each, uploads in parts. It checks no
signature. It answers one request at a time, so put-if-absent is atomic; moto's is not, and takes ten times as long.
Equal contents are stored once.
"""

import asyncio
import gc
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast
from urllib.parse import parse_qs, unquote

from simulated.endpoint_xml import completed, deleted, error, keys_to_delete, listed, started

PAGE = 1_000
"""Keys of a page of a list, as S3."""
REASONS = {200: "OK", 204: "No Content", 206: "Partial Content", 404: "Not Found", 412: "Precondition Failed"}


class Stored(NamedTuple):
    """An object: its place in the file of contents, its digest, and the metadata of its writer."""

    offset: int
    size: int
    etag: str
    writer: str


@dataclass
class Answer:
    """A response."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Store:
    """The objects of all buckets: `bucket/key` -> where its content is."""

    contents: int
    """Descriptor of the file of contents."""
    end: int = 0
    objects: dict[str, Stored] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    """Digest -> offset of a content."""
    folders: dict[str, dict[str, int]] = field(default_factory=dict)
    """Folder -> name -> 0 for an object, else how many objects are below this name."""
    lists: dict[str, list[str]] = field(default_factory=dict)
    """Token of a list that has further pages -> all its names."""
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)

    def put(self, key: str, content: bytes, writer: str) -> str:
        """Store an object; return its ETag."""
        etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if etag not in self.places:
            os.pwrite(self.contents, content, self.end)
            self.places[etag], self.end = self.end, self.end + len(content)
        if key not in self.objects:
            self._count(key, 1)
        self.objects[key] = Stored(self.places[etag], len(content), etag, writer)
        return etag

    def remove(self, key: str) -> None:
        """Remove an object, if it is there."""
        if self.objects.pop(key, None) is not None:
            self._count(key, -1)

    def _count(self, key: str, step: int) -> None:
        folder, _, name = key.rpartition("/")
        names = self.folders.setdefault(folder, {})
        if step > 0:
            names[name] = 0
        else:
            names.pop(name, None)
        while folder:
            parent, _, name = folder.rpartition("/")
            below = self.folders.setdefault(parent, {})
            below[name] = below.get(name, 0) + step
            if not below[name]:
                del below[name]
                self.folders.pop(folder, None)
            folder = parent

    def read(self, found: Stored, first: int, last: int) -> bytes:
        """Return bytes `first` to `last`, both included."""
        return os.pread(self.contents, last - first + 1, found.offset + first)

    def names(self, prefix: str, *, delimited: bool) -> list[str]:
        """Return the sorted keys, and folders with their `/`, of a folder; without a delimiter all keys below it."""
        folder = prefix.rstrip("/")
        if delimited:
            found = self.folders.get(folder, {})
            return sorted(f"{folder}/{name}{'/' if below else ''}" for name, below in found.items())
        keys, front = list[str](), [folder]
        while front:
            one = front.pop()
            for name, below in self.folders.get(one, {}).items():
                (front if below else keys).append(f"{one}/{name}")
        return sorted(keys)


class Service:
    """Answers requests from a store, and counts them by method and first folder of the key."""

    def __init__(self, store: Store) -> None:
        self.store, self.requests = store, Counter[str]()
        self._answers: dict[str, Callable[[str, dict[str, str], Mapping[str, str], bytes], Answer]] = {
            "PUT": self._put,
            "GET": self._get,
            "HEAD": self._get,
            "DELETE": self._delete,
            "POST": self._post,
        }

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer one request."""
        path, _, query = target.partition("?")
        if path == "/-/requests":
            return Answer(body=json.dumps(self.requests).encode())
        asked = {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}
        is_list = method == "GET" and "list-type" in asked
        key = unquote(path).strip("/")
        kind = "LIST" if is_list else "DELETE" if "delete" in asked else method
        words = (asked.get("prefix", "") if is_list else key.partition("/")[2]).strip("/").split("/")
        self.requests[f"{kind} {'/'.join([*words[1:2], *words[3:4]])}"] += (
            1  # step and folder of store/step/artifact/folder
        )
        return self._list(key, asked) if is_list else self._answers[method](key, asked, headers, body)

    def _put(self, key: str, asked: dict[str, str], headers: Mapping[str, str], body: bytes) -> Answer:
        if "uploadId" in asked:
            self.store.parts[asked["uploadId"]][int(asked["partNumber"])] = body
            return Answer(headers={"etag": f'"{asked["partNumber"]}"'})
        if headers.get("if-none-match") == "*" and key in self.store.objects:
            return Answer(412, error("PreconditionFailed"))
        etag = self.store.put(key, body, headers.get("x-amz-meta-raystpwriter", ""))
        return Answer(headers={"etag": f'"{etag}"'})

    def _get(self, key: str, asked: dict[str, str], headers: Mapping[str, str], body: bytes) -> Answer:  # noqa: ARG002 -- as the others
        found = self.store.objects.get(key)
        if found is None:
            return Answer(404, error("NoSuchKey"))
        if headers.get("if-match", "").strip('"') not in {"", found.etag}:
            return Answer(412, error("PreconditionFailed"))
        own = {"etag": f'"{found.etag}"', "last-modified": "Sun, 01 Nov 2026 00:00:00 GMT"}
        own |= {"x-amz-meta-raystpwriter": found.writer} if found.writer else {}
        span = headers.get("range", "").removeprefix("bytes=")
        if not span:
            return Answer(200, self.store.read(found, 0, found.size - 1), own)
        first, _, last = span.partition("-")
        until = min(int(last or found.size), found.size - 1)
        own["content-range"] = f"bytes {first}-{until}/{found.size}"
        return Answer(206, self.store.read(found, int(first), until), own)

    def _delete(self, key: str, asked: dict[str, str], headers: Mapping[str, str], body: bytes) -> Answer:  # noqa: ARG002 -- as the others
        if "uploadId" in asked:
            self.store.parts[asked["uploadId"]].clear()  # an upload that its client gave up
        else:
            self.store.remove(key)
        return Answer(204)

    def _post(self, key: str, asked: dict[str, str], headers: Mapping[str, str], body: bytes) -> Answer:
        if "delete" in asked:
            keys = keys_to_delete(body)
            for one in keys:
                self.store.remove(f"{key}/{one}")
            return Answer(200, deleted(keys))
        if "uploads" in asked:
            upload = f"{len(self.store.parts)}"
            self.store.parts[upload] = {}
            return Answer(200, started(upload))
        parts = self.store.parts[asked["uploadId"]]
        content = b"".join(parts[number] for number in sorted(parts))
        parts.clear()
        return Answer(200, completed(self.store.put(key, content, headers.get("x-amz-meta-raystpwriter", ""))))

    def _list(self, bucket: str, asked: dict[str, str]) -> Answer:
        token = asked.get("continuation-token")
        if token is None:
            prefix = f"{bucket}/{asked.get('prefix', '')}"
            names, first, name = (
                self.store.names(prefix, delimited="delimiter" in asked),
                0,
                f"{sum(self.requests.values())}",
            )
        else:
            name, _, at = token.partition(".")
            names, first = self.store.lists[name], int(at)
        page = names[first : first + min(PAGE, int(asked.get("max-keys", PAGE)))]
        rest = first + len(page)
        if rest < len(names):
            self.store.lists[name] = names
        else:
            self.store.lists.pop(name, None)
        keys = [(one, self.store.objects.get(one)) for one in page]
        entries = [(one.removeprefix(f"{bucket}/"), found and (found.size, found.etag)) for one, found in keys]
        return Answer(200, listed(entries, f"{name}.{rest}" if rest < len(names) else None))


class Connection(asyncio.Protocol):
    """One connection with one request after the other."""

    def __init__(self, service: Service) -> None:
        self._service, self._received = service, bytearray()
        self._need = 0
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        self._received += data
        while len(self._received) >= self._need:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            first, *lines = self._received[:end].decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            self._need = end + 4 + int(headers.get("content-length", 0))
            if len(self._received) < self._need:
                return
            body = bytes(self._received[end + 4 : self._need])
            del self._received[: self._need]
            self._need = 0
            method, target, _ = first.split(" ")
            self._send(method, self._service.answer(method, target, headers, body))

    def _send(self, method: str, answer: Answer) -> None:
        lines = [f"HTTP/1.1 {answer.status} {REASONS[answer.status]}", f"content-length: {len(answer.body)}"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        head = "\r\n".join([*lines, "", ""]).encode()
        assert self._transport is not None
        self._transport.write(head if method == "HEAD" else head + answer.body)


async def serve(folder: Path) -> None:
    """Serve on a free port of loopback until the process is ended."""
    contents = os.open(folder / "contents", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    service = Service(Store(contents))
    server = await asyncio.get_running_loop().create_server(lambda: Connection(service), "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)  # millions of small objects live as long as the process
    try:
        import uvloop  # it comes with Ray Serve
    except ModuleNotFoundError:
        asyncio.run(serve(Path(sys.argv[1])))
    else:
        uvloop.run(serve(Path(sys.argv[1])))
