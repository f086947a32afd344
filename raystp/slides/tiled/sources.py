"""Where a slide's bytes come from: a file on this machine, or ranged reads of an object.

In goes a place, out come the bytes of the stretches that were asked for, in their order. Neighbours in an object
are fetched as one span: a request costs some 30 ms, in which 64 KiB come along for nothing. A file is read with `pread`
and not through a memory map, for a map of a file that is cut off meanwhile kills the process. A slide that is replaced
while it is read is an error: what was read before and after would be two slides.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import add
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from raystp.errors import SlideError

GAP = 1 << 16
"""Bytes between two stretches that are fetched along with them, rather than asking twice."""

WASTE = 8
"""Of the bytes that are asked for, one more in so many at most is fetched to fill gaps: scattered tiles stay cheap."""

SPAN = 8 << 20
"""Bytes that one request asks for at most, unless one stretch alone is longer."""


@runtime_checkable
class ByteSource(Protocol):
    """An open file or object. Its methods may be called from many threads at once."""

    @property
    def size(self) -> int:
        """Bytes of all of it."""
        ...

    @property
    def version(self) -> str:
        """What tells this content from another under the same name: size and time of change, or the store's ETag."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether asking it takes a while, so that several stretches are better asked for at once."""
        ...

    def fetch(self, offsets: Sequence[int], counts: Sequence[int]) -> list[memoryview]:
        """Return the bytes of each stretch, in the order given.

        Raises SlideError where the slide is shorter than that, or no longer the one that was opened; StorageError
        where the store does not answer.
        """
        ...

    def close(self) -> None:
        """Let go of the file or object."""
        ...


@dataclass(frozen=True)
class FetchSpan:
    """Bytes that are fetched in one go, and the stretches that lie in them."""

    offset: int
    count: int
    stretches: list[int]


def spans(offsets: Sequence[int], counts: Sequence[int], *, gap: int = GAP, longest: int = SPAN) -> list[FetchSpan]:
    """Return the spans that hold all stretches, each stretch whole in one span, in the file's order.

    Stretches that are at most `gap` bytes apart share a span, as long as it stays within `longest` bytes and few of
    its bytes lie between them.
    """
    found: list[FetchSpan] = []
    start = end = useful = 0
    held: list[int] = []
    for number in np.argsort(np.asarray(offsets, np.int64), kind="stable").tolist():
        first, last = offsets[number], max(end, offsets[number] + counts[number])
        wanted = useful + counts[number]
        if held and first - end <= gap and last - start <= longest and last - start - wanted <= wanted // WASTE:
            end, useful = last, wanted
            held.append(number)
            continue
        if held:
            found.append(FetchSpan(start, end - start, held))
        start, end, useful, held = first, first + counts[number], counts[number], [number]
    if held:
        found.append(FetchSpan(start, end - start, held))
    return found


def fetch_spans(
    where: str, read: Callable[[list[FetchSpan]], list[bytes]], stretches: tuple[Sequence[int], Sequence[int]]
) -> list[memoryview]:
    """Return the bytes of each stretch (offsets, counts), by reading the spans that hold them.

    Raises SlideError, naming `where`, where a span comes back shorter than it was asked for.
    """
    offsets, counts = stretches
    found = [memoryview(b"")] * len(offsets)
    wanted = spans(offsets, counts)
    for span, content in zip(wanted, read(wanted), strict=True):
        if len(content) != span.count:
            raise cut_off(where, span.offset, span.count, len(content))
        view = memoryview(content)
        for number in span.stretches:
            start = offsets[number] - span.offset
            found[number] = view[start : start + counts[number]]
    return found


def cut_off(where: str, offset: int, count: int, found: int) -> SlideError:
    """Return the error of a slide that ends before what was asked for."""
    return SlideError(f"{where} gave {found} of the {count} bytes at {offset}: it was cut off; copy it again")


def replaced(where: str) -> SlideError:
    """Return the error of a slide that is no longer the one that was opened."""
    return SlideError(f"{where} was replaced while it was read; run the same command again, once it stays as it is")


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
        self.version = self._state()
        self.size = os.fstat(self._file).st_size

    def fetch(self, offsets: Sequence[int], counts: Sequence[int]) -> list[memoryview]:
        """Return the bytes of each stretch; see `ByteSource`."""
        if not offsets:
            return []
        first, useful = min(offsets), sum(counts)
        whole = max(map(add, offsets, counts)) - first
        dense = whole - useful <= min(useful // WASTE, SPAN)
        places = [(first, whole)] if dense else list(zip(offsets, counts, strict=True))
        try:
            found = [os.pread(self._file, count, offset) for offset, count in places]
        except OSError as error:
            msg = f"{self._where} cannot be read: {error.strerror}"
            raise SlideError(msg) from None
        if self._state() != self.version:
            raise replaced(self._where)
        for (offset, count), content in zip(places, found, strict=True):
            if len(content) != count:
                raise cut_off(self._where, offset, count, len(content))
        views = [memoryview(content) for content in found]
        if not dense:
            return views
        return [views[0][offset - first : offset - first + n] for offset, n in zip(offsets, counts, strict=True)]

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _state(self) -> str:
        try:
            state = self._path.stat()
        except OSError:
            raise replaced(self._where) from None
        return f"{state.st_size} bytes of {state.st_mtime_ns}"
