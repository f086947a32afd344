"""Matrix products in several threads at once, each on a core of its own.

A product that BLAS itself spreads over all cores leaves its result in all their caches, and its threads keep asking for
work while others would go on with it. A thread that does a small product by itself goes on with it where it lies.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]  # it ships without types

_T = TypeVar("_T")


class _Alone:
    """BLAS on one thread for as long as anybody wants it so: the first sets it, and the last sets it back."""

    def __init__(self) -> None:
        self._lock, self._wanted, self._limit = threading.Lock(), 0, contextlib.ExitStack()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep BLAS on one thread within a `with`, in the whole process."""
        with self._lock:
            self._wanted += 1
            if self._wanted == 1:
                self._limit.enter_context(_controller().limit(limits=1, user_api="blas"))
        try:
            yield
        finally:
            with self._lock:
                self._wanted -= 1
                if not self._wanted:
                    self._limit.close()


_ALONE = _Alone()


@functools.cache
def _controller() -> Any:
    """Find the libraries that are loaded; once, for that takes milliseconds."""
    return ThreadpoolController()


def one_thread_each(calls: Sequence[Callable[[], _T]]) -> list[_T]:
    """Call each in a thread of its own, with BLAS on one thread in each; a single call is made here, with all."""
    if len(calls) == 1:
        return [calls[0]()]
    with _ALONE.held(), ThreadPoolExecutor(len(calls)) as pool:
        return [done.result() for done in [pool.submit(call) for call in calls]]
