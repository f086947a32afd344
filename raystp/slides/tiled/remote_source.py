"""An object in a store as a byte source with read-ahead, and as a file object for its header.

Ranges of the object (s3://, gs://) are fetched in parallel; it is never downloaded whole. `HeaderFile` gives tifffile a
file object that keeps the blocks it has read.
"""

import io
import threading
from collections.abc import Sequence

from raystp.slides.tiled.byte_source import ByteSource, FetchSpan, coalesce, fetch_spans
from raystp.slides.tiled.read_ahead import ReadAhead
from raystp.storage import StoragePath

BLOCK_BYTES = 1 << 18
"""Bytes of a header that are fetched at a time; the header of some thousands of tiles has one or two blocks."""

MAX_HEADER_BYTES = 1 << 28
"""Bytes of a header, at most: a million tiles need 16 MB, and a damaged header may refer to the whole object."""


class RemoteSource:
    """One version of an object in a store, read by ranges; see `ByteSource`."""

    is_remote = True

    def __init__(self, where: str, path: StoragePath) -> None:
        self._where, self._path = where, path
        self.fetched_bytes, self.requests = 0, 1
        self._counting = threading.Lock()
        info = path.stored_object().info()
        self.size, self.version = info.size, info.version
        self._ahead = ReadAhead(self._read)

    def prefetch(self, offsets: Sequence[int], counts: Sequence[int]) -> None:
        """Start to fetch ranges that are needed next, up to `PREFETCH_BYTES`; drop the earlier prefetch."""
        self._ahead.close()
        self._ahead = ReadAhead(self._read, coalesce(offsets, counts))

    def fetch(self, offsets: Sequence[int], counts: Sequence[int]) -> list[memoryview]:
        """Return the bytes of each range; see `ByteSource`. Ranges without a prefetch are fetched in parallel."""
        found = self._ahead.take(offsets, counts)
        missing = [number for number, content in enumerate(found) if content is None]
        ranges = ([offsets[number] for number in missing], [counts[number] for number in missing])
        fetched = iter(fetch_spans(self._where, self._read, ranges) if missing else [])
        return [next(fetched) if content is None else content for content in found]

    def close(self) -> None:
        """Drop the prefetch; nothing else is held between two reads."""
        self._ahead.close()

    def _read(self, spans: list[FetchSpan]) -> list[bytes]:
        with self._counting:
            self.fetched_bytes += sum(span.count for span in spans)
            self.requests += len(spans)
        return self._path.read_ranges([(span.offset, span.count) for span in spans], version=self.version)


class HeaderFile(io.RawIOBase):
    """A source as a seekable file. The first and the last block are fetched at once, others when they are read.

    Blocks are kept: this is for headers, which are at a file's start, at its end, or in a few places between images.
    """

    def __init__(self, source: ByteSource, block_bytes: int = BLOCK_BYTES) -> None:
        super().__init__()
        self._source, self._block_bytes, self._position = source, block_bytes, 0
        self._blocks: dict[int, bytes] = {}
        last = max(0, source.size - 1) // block_bytes
        if source.size:
            self._load(sorted({0, last}))

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position of the next read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move the position of the next read, and return it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        """Return the next `size` bytes, fewer at the end."""
        end = self._source.size if size < 0 else min(self._source.size, self._position + size)
        if end <= self._position:
            return b""
        first, last = self._position // self._block_bytes, (end - 1) // self._block_bytes
        self._load([number for number in range(first, last + 1) if number not in self._blocks])
        content = b"".join(self._blocks[number] for number in range(first, last + 1))
        start = self._position - first * self._block_bytes
        content = content[start : start + end - self._position]
        self._position = end
        return content

    def readinto(self, buffer: object, /) -> int:
        """Fill a buffer, of bytes or of other values, with the next bytes, and return their number."""
        target = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # typing.Buffer needs Python 3.12
        content = self.read(len(target))
        target[: len(content)] = content
        return len(content)

    def _load(self, numbers: list[int]) -> None:
        if (len(self._blocks) + len(numbers)) * self._block_bytes > MAX_HEADER_BYTES:
            msg = f"its header refers to more than {MAX_HEADER_BYTES} bytes"
            raise ValueError(msg)
        offsets = [number * self._block_bytes for number in numbers]
        counts = [min(self._block_bytes, self._source.size - offset) for offset in offsets]
        for number, content in zip(numbers, self._source.fetch(offsets, counts) if numbers else [], strict=True):
            self._blocks[number] = bytes(content)
