"""A whole object into a local file: its parts in parallel, all of one version, then held against size and checksum."""

import contextlib
import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from raystp.errors import StorageError
from raystp.storage.stored import ByteRange, ObjectInfo, Sink, StoredObject, read_spans

PART = 32 << 20
"""An object up to this size is one request."""
THREADS = 4
PIECE = 1 << 20


def download(stored: StoredObject, seen: ObjectInfo, path: Path) -> None:
    """Fill the file at `path`, which is there already, with what was `seen`.

    Raises StorageError where it does not come whole.
    """
    spans = [ByteRange(at, min(PART, seen.size - at)) for at in range(0, seen.size, PART)]
    parts = [_part(path, span.offset) for span in spans]
    read_spans(stored, spans, parts, version=seen.version, threads=THREADS)
    size = path.stat().st_size
    if size != seen.size:
        msg = f"{stored.shown} has {seen.size} bytes, and its download has {size}"
        raise StorageError(msg)
    if seen.digest is not None and file_digest(path, seen.digest[0]) != seen.digest[1]:
        msg = (
            f"the download of {stored.shown} is damaged: the store keeps the {seen.digest[0]} of its content, and "
            "these bytes have another; run again, and if it stays so, upload the file anew"
        )
        raise StorageError(msg)


@contextlib.contextmanager
def _part(path: Path, at: int) -> Iterator[Sink]:
    with path.open("r+b") as file:
        file.seek(at)
        yield file.write


class Crc32:
    """zlib's CRC-32 with the face of a hash."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, piece: bytes) -> None:
        """Take the next bytes in."""
        self._value = zlib.crc32(piece, self._value)

    def hexdigest(self) -> str:
        """Return the eight digits."""
        return f"{self._value:08x}"


class _Hash(Protocol):
    def update(self, piece: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


def file_digest(path: Path, name: str) -> str:
    """Return the hexadecimal digest of a file by its name: `crc32`, or any of hashlib's."""
    taken: _Hash = Crc32() if name == "crc32" else hashlib.new(name, usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            taken.update(piece)
    return taken.hexdigest()
