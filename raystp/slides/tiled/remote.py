"""An object in a store as a source of ranges, and as a file whose header can be parsed.

In goes a place under s3:// or gs://, out come stretches of its bytes, fetched in parallel, and a file-like object for
tifffile that keeps the blocks it has read. The object is never fetched as a whole.
"""

import bisect
import io
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

import numpy as np

from raystp.slides.tiled.sources import ByteSource, FetchSpan, fetch_spans, spans
from raystp.storage import StoragePath

BLOCK = 1 << 18
"""Bytes of a header that are fetched at a time; the header of some thousands of tiles is one or two of them."""

EXPECTED = 64 << 20
"""Bytes of an object that are fetched before they are asked for, at most: a unit of 2,048 tiles takes about 20 MB."""

PIECE, ABREAST = 8, 4
"""Spans that are fetched together, and how many such pieces at a time."""

MAX_HEADER = 1 << 28
"""Bytes of a header that are believed: a million tiles take 16 MB, a damaged header may ask for the whole object."""


class RemoteSource:
    """One version of an object in a store, read in ranges; see `ByteSource`."""

    is_remote = True

    def __init__(self, where: str, place: StoragePath) -> None:
        self._where, self._place = where, place
        seen = place.stored().look()
        self.size, self.version = seen.size, seen.version
        self._ahead = ReadAhead(self._read)

    def expect(self, offsets: Sequence[int], counts: Sequence[int]) -> None:
        """Begin to fetch stretches that will be asked for, up to `EXPECTED` bytes; what was expected before goes."""
        self._ahead.close()
        self._ahead = ReadAhead(self._read, spans(offsets, counts))

    def fetch(self, offsets: Sequence[int], counts: Sequence[int]) -> list[memoryview]:
        """Return the bytes of each stretch; see `ByteSource`. Spans that were not expected are fetched in parallel."""
        found = self._ahead.take(offsets, counts)
        missing = [number for number, content in enumerate(found) if content is None]
        stretches = ([offsets[number] for number in missing], [counts[number] for number in missing])
        fetched = iter(fetch_spans(self._where, self._read, stretches) if missing else [])
        return [next(fetched) if content is None else content for content in found]

    def close(self) -> None:
        """Give up what was expected; between two reads nothing else is held."""
        self._ahead.close()

    def _read(self, wanted: list[FetchSpan]) -> list[bytes]:
        return self._place.read_ranges([(span.offset, span.count) for span in wanted], version=self.version)


class ReadAhead:
    """Spans that are fetched before they are asked for, in the file's order, some at a time."""

    def __init__(self, read: Callable[[list[FetchSpan]], list[bytes]], wanted: Sequence[FetchSpan] = ()) -> None:
        held = np.cumsum([span.count for span in wanted]) <= EXPECTED
        self._spans = [span for span, kept in zip(wanted, held.tolist(), strict=True) if kept]
        self._starts = [span.offset for span in self._spans]
        self._pool = ThreadPoolExecutor(ABREAST, "raystp-ahead") if self._spans else None
        self._pieces: list[Future[list[bytes]]] = []
        if self._pool is not None:
            pieces = [self._spans[start : start + PIECE] for start in range(0, len(self._spans), PIECE)]
            self._pieces = [self._pool.submit(read, piece) for piece in pieces]

    def take(self, offsets: Sequence[int], counts: Sequence[int]) -> list[memoryview | None]:
        """Return the stretches that were expected, None for the others; raises what fetching them raised."""
        return [self._one(offset, count) for offset, count in zip(offsets, counts, strict=True)]

    def _one(self, offset: int, count: int) -> memoryview | None:
        number = bisect.bisect_right(self._starts, offset) - 1
        if number < 0 or offset + count > self._spans[number].offset + self._spans[number].count:
            return None
        try:
            content = self._pieces[number // PIECE].result()[number % PIECE]
        except CancelledError:  # another unit was begun meanwhile
            return None
        start = offset - self._spans[number].offset
        stretch = memoryview(content)[start : start + count]
        return stretch if len(stretch) == count else None  # cut off: asked for again, it is said so

    def close(self) -> None:
        """Drop what was not fetched yet."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


class BlockFile(io.RawIOBase):
    """A source as a seekable file. The first and the last block are fetched at once, others when they are asked for.

    The blocks stay: this is for headers, which lie at a file's start, at its end, or in a few places between images.
    """

    def __init__(self, source: ByteSource, block: int = BLOCK) -> None:
        super().__init__()
        self._source, self._block, self._at = source, block, 0
        self._blocks: dict[int, bytes] = {}
        last = max(0, source.size - 1) // block
        if source.size:
            self._load(sorted({0, last}))

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be read anywhere."""
        return True

    def tell(self) -> int:
        """Return the place of the next read."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to a place."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._source.size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        """Return the next `size` bytes, fewer at the end."""
        end = self._source.size if size < 0 else min(self._source.size, self._at + size)
        if end <= self._at:
            return b""
        first, last = self._at // self._block, (end - 1) // self._block
        self._load([number for number in range(first, last + 1) if number not in self._blocks])
        content = b"".join(self._blocks[number] for number in range(first, last + 1))
        start = self._at - first * self._block
        content = content[start : start + end - self._at]
        self._at = end
        return content

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        """Fill a buffer with the next bytes; return how many."""
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def _load(self, numbers: list[int]) -> None:
        if (len(self._blocks) + len(numbers)) * self._block > MAX_HEADER:
            msg = f"its header asks for more than {MAX_HEADER} bytes"
            raise ValueError(msg)
        offsets = [number * self._block for number in numbers]
        counts = [min(self._block, self._source.size - offset) for offset in offsets]
        for number, content in zip(numbers, self._source.fetch(offsets, counts) if numbers else [], strict=True):
            self._blocks[number] = bytes(content)
