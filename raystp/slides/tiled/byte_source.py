"""Byte sources of slides: a file on this machine, or ranged reads of an object; and the coalescing of byte ranges.

Neighbouring ranges of an object are fetched as one span: a request costs about 30 ms, in which 64 KiB more are free. A
file is read with `pread` and not through a memory map: truncating a mapped file kills the process. A slide that is
replaced during reading is an error, because earlier and later reads would mix two slides.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import add
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from raystp.errors import SlideError

MAX_GAP = 1 << 16
"""Bytes between two ranges that are fetched in one request, at most."""

GAP_SHARE = 8
"""One byte of gaps is fetched per this many requested bytes, at most: scattered tiles stay cheap."""

MAX_SPAN = 8 << 20
"""Bytes of one request, at most, unless one range is longer."""


@runtime_checkable
class ByteSource(Protocol):
    """An open file or object. Threads may share it."""

    @property
    def size(self) -> int:
        """Total bytes."""
        ...

    @property
    def version(self) -> str:
        """Identifies the content under this name: size and modification time, or the store's ETag."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether requests have a latency, so that several ranges should be fetched at once."""
        ...

    def fetch(self, offsets: Sequence[int], counts: Sequence[int]) -> list[memoryview]:
        """Return the bytes of each range, in the order given.

        Raises:
            SlideError: the slide is shorter than that, or was replaced after it was opened.
            StorageError: the store cannot be read.
        """
        ...

    def close(self) -> None:
        """Release the file or object."""
        ...


@dataclass(frozen=True)
class FetchSpan:
    """Bytes that are fetched in one request, and the numbers of the ranges inside them."""

    offset: int
    count: int
    ranges: list[int]


def coalesce(
    offsets: Sequence[int], counts: Sequence[int], *, max_gap: int = MAX_GAP, max_span: int = MAX_SPAN
) -> list[FetchSpan]:
    """Return spans that hold all ranges, each range whole in one span, in the file's order.

    Ranges at most `max_gap` bytes apart share a span while it has at most `max_span` bytes and few bytes of gaps.
    """
    found: list[FetchSpan] = []
    start = end = useful = 0
    ranges: list[int] = []
    for number in np.argsort(np.asarray(offsets, np.int64), kind="stable").tolist():
        first, last = offsets[number], max(end, offsets[number] + counts[number])
        total = useful + counts[number]
        if (
            ranges
            and first - end <= max_gap
            and last - start <= max_span
            and last - start - total <= total // GAP_SHARE
        ):
            end, useful = last, total
            ranges.append(number)
            continue
        if ranges:
            found.append(FetchSpan(start, end - start, ranges))
        start, end, useful, ranges = first, first + counts[number], counts[number], [number]
    if ranges:
        found.append(FetchSpan(start, end - start, ranges))
    return found


def fetch_spans(
    where: str, read: Callable[[list[FetchSpan]], list[bytes]], ranges: tuple[Sequence[int], Sequence[int]]
) -> list[memoryview]:
    """Return the bytes of each range (offsets, counts) by reading the spans that hold them.

    Raises:
        SlideError: a span comes back shorter than requested; the message begins with `where`.
    """
    offsets, counts = ranges
    found = [memoryview(b"")] * len(offsets)
    spans = coalesce(offsets, counts)
    for span, content in zip(spans, read(spans), strict=True):
        if len(content) != span.count:
            raise truncated_error(where, span.offset, span.count, len(content))
        view = memoryview(content)
        for number in span.ranges:
            start = offsets[number] - span.offset
            found[number] = view[start : start + counts[number]]
    return found


def truncated_error(where: str, offset: int, count: int, found: int) -> SlideError:
    """Return the error for a slide that ends before a range does."""
    return SlideError(f"{where} returned {found} of the {count} bytes at {offset}: it was cut off; copy it again")


def replaced_error(where: str) -> SlideError:
    """Return the error for a slide that was replaced after it was opened."""
    return SlideError(f"{where} was replaced while it was read; run the same command again when it no longer changes")


class LocalSource:
    """A file on this machine."""

    is_remote = False

    def __init__(self, where: str, path: Path) -> None:
        self._where, self._path = where, path
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            msg = f"{where} cannot be opened: {error.strerror}"
            raise SlideError(msg) from None
        self._opened_as = self._current()
        self.size, changed_ns = self._opened_as
        self.version = f"{self.size} bytes of {changed_ns}"

    def fetch(self, offsets: Sequence[int], counts: Sequence[int]) -> list[memoryview]:
        """Return the bytes of each range; see `ByteSource`."""
        if not offsets:
            return []
        first, useful = min(offsets), sum(counts)
        whole = max(map(add, offsets, counts)) - first
        is_dense = whole - useful <= min(useful // GAP_SHARE, MAX_SPAN)
        reads = [(first, whole)] if is_dense else list(zip(offsets, counts, strict=True))
        try:
            contents = [os.pread(self._file, count, offset) for offset, count in reads]
        except OSError as error:
            msg = f"{self._where} cannot be read: {error.strerror}"
            raise SlideError(msg) from None
        if self._current() != self._opened_as:
            raise replaced_error(self._where)
        for (offset, count), content in zip(reads, contents, strict=True):
            if len(content) != count:
                raise truncated_error(self._where, offset, count, len(content))
        views = [memoryview(content) for content in contents]
        if not is_dense:
            return views
        return [views[0][offset - first : offset - first + n] for offset, n in zip(offsets, counts, strict=True)]

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _current(self) -> tuple[int, int]:
        """Return the size and the modification time, in ns, of the file that has the path now."""
        try:
            stat = self._path.stat()
        except OSError:
            raise replaced_error(self._where) from None
        return stat.st_size, stat.st_mtime_ns
