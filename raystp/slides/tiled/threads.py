"""A thread pool that drops pending work at the first error, and a prefetching iterator."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


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
