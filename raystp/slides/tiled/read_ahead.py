"""Read ahead in threads: spans of an object, and results of calls in order; pending work is dropped after an error."""

import bisect
import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from raystp.slides.tiled.byte_source import FetchSpan

T = TypeVar("T")

PREFETCH_BYTES = 64 << 20
"""Bytes of an object that are read ahead, at most: a unit of 2,048 tiles has about 20 MB."""

GROUP_SPANS, PARALLEL_GROUPS = 8, 4
"""Spans that are fetched in one group, and groups that are fetched in parallel."""


@contextlib.contextmanager
def cancelling_pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Give a pool of `threads`; at exit, also after an error, pending work is cancelled."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def prefetched(pool: ThreadPoolExecutor, loads: Sequence[Callable[[], T]], *, count: int) -> Iterator[T]:
    """Yield the result of each call, in order, while the next `count` calls run in the pool."""
    pending: deque[Future[T]] = deque()
    for number in range(len(loads) + count):
        if number < len(loads):
            pending.append(pool.submit(loads[number]))
        if number >= count:
            yield pending.popleft().result()


class ReadAhead:
    """Spans that are fetched in the background, in the file's order, some groups in parallel."""

    def __init__(self, read: Callable[[list[FetchSpan]], list[bytes]], spans: Sequence[FetchSpan] = ()) -> None:
        within_limit = np.cumsum([span.count for span in spans]) <= PREFETCH_BYTES
        self._spans = [span for span, kept in zip(spans, within_limit.tolist(), strict=True) if kept]
        self._starts = [span.offset for span in self._spans]
        self._pool = ThreadPoolExecutor(PARALLEL_GROUPS, "raystp-ahead") if self._spans else None
        self._groups: list[Future[list[bytes]]] = []
        if self._pool is not None:
            groups = [self._spans[start : start + GROUP_SPANS] for start in range(0, len(self._spans), GROUP_SPANS)]
            self._groups = [self._pool.submit(read, group) for group in groups]

    def take(self, offsets: Sequence[int], counts: Sequence[int]) -> list[memoryview | None]:
        """Return each range's bytes, None for a range without a prefetch; raise the errors of the fetch."""
        return [self._take_one(offset, count) for offset, count in zip(offsets, counts, strict=True)]

    def _take_one(self, offset: int, count: int) -> memoryview | None:
        number = bisect.bisect_right(self._starts, offset) - 1
        if number < 0 or offset + count > self._spans[number].offset + self._spans[number].count:
            return None
        try:
            content = self._groups[number // GROUP_SPANS].result()[number % GROUP_SPANS]
        except CancelledError:  # the next unit was started
            return None
        start = offset - self._spans[number].offset
        found = memoryview(content)[start : start + count]
        return found if len(found) == count else None  # truncated: the next fetch of this range reports it

    def close(self) -> None:
        """Cancel what was not fetched yet."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
