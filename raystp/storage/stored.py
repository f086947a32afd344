"""What every kind of store can do with one object: look at it, write it where nothing is, read a part of one version.

`read_spans` reads many parts in parallel threads, and ends all of them with the first error.
"""

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from raystp.errors import StorageError
from raystp.storage.patience import RetryPolicy, StallTimeout

THREADS = 16
"""Parts read at once where nothing is asked for: at 30 ms an answer, some 500 parts a second."""

MARK = "raystp-writer"
"""Metadata that tells a write of ours from another's, where the store's answer to it was lost."""

Sink = Callable[[Any], Any]
"""Takes the bytes of one part, piece by piece, in order."""


@dataclass(frozen=True)
class ByteRange:
    """A part of an object: `length` bytes from `offset` on."""

    offset: int
    length: int


@dataclass(frozen=True)
class ObjectInfo:
    """An object as it is now."""

    version: str
    """Changes whenever the content does: ETag (S3), generation (GS), or size and time of change (this machine)."""
    size: int
    digest: tuple[str, str] | None
    """What the store knows of the content: (`crc32`, `md5`, `sha1` or `sha256`; hexadecimal), where it knows any."""


@runtime_checkable
class StoredObject(Protocol):
    """One object, of one kind of store. Whatever goes wrong is a StorageError that names it."""

    @property
    def shown(self) -> str:
        """The place without its secrets."""
        ...

    @property
    def identity(self) -> str:
        """The same for the same object, on every machine; without its secrets."""
        ...

    @property
    def patience(self) -> RetryPolicy:
        """What is allowed to a read."""
        ...

    def look(self) -> ObjectInfo:
        """Return what is there now."""
        ...

    def put_new(self, content: bytes) -> bool:
        """Write the object whole if nothing is there, and say whether that was so."""
        ...

    def read(self, span: ByteRange, sink: Sink, *, version: str | None, watch: StallTimeout) -> None:
        """Give `sink` all bytes of `span`, each once; those of `version`, where it is given."""
        ...


def read_spans(
    stored: StoredObject,
    spans: Sequence[ByteRange],
    sinks: Sequence[contextlib.AbstractContextManager[Sink]],
    *,
    version: str | None,
    threads: int = THREADS,
) -> None:
    """Read the spans into their sinks, up to `threads` at once.

    The patience is with all of them together. The first error is raised at once; a thread that still waits for a byte
    then ends by itself, and writes nothing more.
    """
    watch = StallTimeout(stored.shown, stored.patience)

    def read(span: ByteRange, kept: contextlib.AbstractContextManager[Sink]) -> None:
        with kept as sink:
            stored.read(span, sink, version=version, watch=watch)

    if len(spans) <= 1 or threads <= 1:
        for span, kept in zip(spans, sinks, strict=True):
            read(span, kept)
        return
    pool = ThreadPoolExecutor(min(threads, len(spans)), thread_name_prefix="raystp-read")
    try:
        for _ in pool.map(read, spans, sinks):
            pass
    finally:
        watch.stop()
        pool.shutdown(wait=False, cancel_futures=True)


def replaced(shown: str, version: str) -> StorageError:
    """Return the error of an object that is not of the version that was asked for."""
    return StorageError(f"{shown} was replaced while it was read: it is no longer of version {version!r}; run again")
