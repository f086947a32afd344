"""Threads that give up at the first error, and work that is done a little ahead of its use."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


@contextlib.contextmanager
def workers(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Give threads whose waiting work is dropped at the first error, not done first."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def ahead(pool: ThreadPoolExecutor, loads: Sequence[Callable[[], T]], *, count: int) -> Iterator[T]:
    """Yield what each call returns, in order, while the next `count` calls are under way."""
    waiting: deque[Future[T]] = deque()
    for number in range(len(loads) + count):
        if number < len(loads):
            waiting.append(pool.submit(loads[number]))
        if number >= count:
            yield waiting.popleft().result()
