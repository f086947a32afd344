"""What every kind of store can do with one object or folder; parallel reads and downloads with any of them.

`read_in_parallel` reads many ranges with threads and stops all of them at the first error. `download` writes one
version of a whole object to a file, then checks its size and checksum.
"""

import contextlib
import hashlib
import io
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import pyarrow as pa

from raystp.errors import StorageError
from raystp.storage.retry import RetryPolicy, StallTimeout

THREADS = 16
"""Ranges that are read at once by default: with 30 ms a request, some 500 ranges a second."""

PART_BYTES, FILE_PART_BYTES = 32 << 20, 8 << 20
"""Largest request of a download, and of a read of a `RangeFile`."""
DOWNLOAD_THREADS = 4
HASH_BYTES = 1 << 20

Kind = Literal["file", "folder"]

Sink = Callable[[bytes], object]
"""Takes the bytes of one range in order, in pieces of any size."""


@dataclass(frozen=True)
class ByteRange:
    """A part of an object: `length` bytes from `offset` on."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        """The offset after the last byte."""
        return self.offset + self.length


@dataclass(frozen=True)
class ObjectInfo:
    """An object as it is now."""

    version: str
    """Changes whenever the content does: ETag (object store), or size and modification time (local file)."""
    size: int


@runtime_checkable
class StoredObject(Protocol):
    """One object or folder in one kind of store. Every failure is a StorageError or an OSError."""

    @property
    def shown(self) -> str:
        """The path without secrets, for messages."""
        ...

    @property
    def identity(self) -> str:
        """Equal for the same object on every machine; without secrets."""
        ...

    @property
    def policy(self) -> RetryPolicy:
        """The timeouts and attempts of each read and write."""
        ...

    def info(self) -> ObjectInfo:
        """Return the present version and size."""
        ...

    def checksum(self, version: str) -> tuple[str, str] | None:
        """Return the stored checksum of that version, if the store has one.

        It is (`crc32`, `md5`, `sha1` or `sha256`; hexadecimal digits).
        """
        ...

    def kind(self) -> Kind | None:
        """Return what is there; None if nothing is."""
        ...

    def is_file(self) -> bool:
        """Return whether there is an object, with one request."""
        ...

    def names(self) -> list[str]:
        """Return the sorted names in the folder; empty if there is no folder."""
        ...

    def files(self) -> list[str]:
        """Return the paths of all files in the folder and below it, relative to it; empty if there is no folder."""
        ...

    def open(self) -> pa.NativeFile:
        """Open the object for random access."""
        ...

    def write(self, content: bytes) -> None:
        """Write the object whole; an existing one is replaced."""
        ...

    def write_file(self, write: Callable[[Path], object]) -> None:
        """Let `write` fill a temporary local file, then make it the object."""
        ...

    def put_new(self, content: bytes) -> bool:
        """Write the object whole if it is absent; return whether it was."""
        ...

    def remove(self) -> None:
        """Remove the object or the folder, if it is there."""
        ...

    def remove_file(self) -> None:
        """Remove the object, if it is there, with one request."""
        ...

    def read(self, span: ByteRange, sink: Sink, *, version: str | None, stall: StallTimeout) -> None:
        """Pass all bytes of `span` to `sink`, each once; those of `version`, if it is given."""
        ...


def read_in_parallel(
    stored: StoredObject,
    spans: Sequence[ByteRange],
    sinks: Sequence[contextlib.AbstractContextManager[Sink]],
    *,
    version: str | None,
    threads: int = THREADS,
) -> None:
    """Read the ranges into their sinks, up to `threads` at once.

    One stall timeout covers all of them. The first error is raised at once; a thread that still waits for a byte then
    ends by itself and writes nothing more.
    """
    stall, failed = StallTimeout(stored.shown, stored.policy), threading.Event()

    def read(span: ByteRange, opened: contextlib.AbstractContextManager[Sink]) -> None:
        if failed.is_set():  # a refused object is asked for once by each thread, however busy the machine is
            return
        try:
            with opened as sink:
                stored.read(span, sink, version=version, stall=stall)
        except BaseException:
            failed.set()
            raise

    if len(spans) <= 1 or threads <= 1:
        for span, opened in zip(spans, sinks, strict=True):
            read(span, opened)
        return
    pool = ThreadPoolExecutor(min(threads, len(spans)), thread_name_prefix="raystp-read")
    try:
        for _ in pool.map(read, spans, sinks):
            pass
    finally:
        stall.stop()
        pool.shutdown(wait=False, cancel_futures=True)


class RangeFile(io.RawIOBase):
    """One version of an object as a seekable file."""

    def __init__(self, stored: StoredObject, info: ObjectInfo) -> None:
        super().__init__()
        self._stored, self._info, self._position = stored, info, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the offset of the next read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Set the offset of the next read."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._info.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        """Return the next `size` bytes, fewer at the end of the object."""
        end = self._info.size if size < 0 else min(self._info.size, self._position + size)
        starts = range(self._position, end, FILE_PART_BYTES)
        spans = [ByteRange(start, min(FILE_PART_BYTES, end - start)) for start in starts]
        parts: list[list[bytes]] = [[] for _ in spans]
        sinks = [contextlib.nullcontext(part.append) for part in parts]
        read_in_parallel(self._stored, spans, sinks, version=self._info.version)
        self._position = max(self._position, end)
        return b"".join(piece for part in parts for piece in part)


def download(stored: StoredObject, info: ObjectInfo, path: Path) -> None:
    """Write the object of that version to the existing file `path`. Raises StorageError if it does not arrive whole."""
    spans = [ByteRange(offset, min(PART_BYTES, info.size - offset)) for offset in range(0, info.size, PART_BYTES)]
    sinks = [_open_at(path, span.offset) for span in spans]
    with ThreadPoolExecutor(1, thread_name_prefix="raystp-checksum") as pool:
        requested = pool.submit(stored.checksum, info.version)
        read_in_parallel(stored, spans, sinks, version=info.version, threads=DOWNLOAD_THREADS)
        checksum = requested.result()
    size = path.stat().st_size
    if size != info.size:
        msg = f"{stored.shown} has {info.size} bytes, and its download has {size}"
        raise StorageError(msg)
    if checksum is not None and file_digest(path, checksum[0]) != checksum[1]:
        msg = (
            f"the download of {stored.shown} is damaged: its {checksum[0]} differs from the one in the store; run "
            "again, and if the error stays, upload the file again"
        )
        raise StorageError(msg)


@contextlib.contextmanager
def _open_at(path: Path, offset: int) -> Iterator[Sink]:
    with path.open("r+b") as file:
        file.seek(offset)
        yield file.write


def file_digest(path: Path, algorithm: str) -> str:
    """Return the hexadecimal digest of a file: `crc32`, or any algorithm of hashlib."""
    with path.open("rb") as file:
        if algorithm != "crc32":
            digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
            return digest.hexdigest()
        crc = 0
        while piece := file.read(HASH_BYTES):
            crc = zlib.crc32(piece, crc)
        return f"{crc:08x}"


def replaced(shown: str, version: str) -> StorageError:
    """Return the error for an object that is no longer of the requested version."""
    return StorageError(f"{shown} was replaced while it was read: it is no longer version {version!r}; run again")
