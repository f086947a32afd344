"""Threads of the search: as many as FAISS uses, each with FAISS and its BLAS on one thread.

A matrix product that BLAS divides among threads leaves parts of its result in every core's cache, and waits for the
slowest thread at each block. Whole blocks of queries per thread avoid both.
"""

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import faiss

Item = TypeVar("Item")


def count() -> int:
    """Return FAISS's number of threads; 1 within a thread of the search."""
    return int(faiss.omp_get_max_threads())


def run_each(function: Callable[[Item], object], items: Sequence[Item]) -> None:
    """Call the function with each item, in threads where there are several; raise the first item's exception."""
    threads = count()
    if threads <= 1 or len(items) <= 1:
        for item in items:
            function(item)
        return
    for _ in _pool(threads).map(function, items):
        pass


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Return the process's pool: a new one takes 0.5 ms, the time of 15 queries among 10,000 rows."""
    return ThreadPoolExecutor(threads, "search", initializer=faiss.omp_set_num_threads, initargs=(1,))


os.register_at_fork(after_in_child=_pool.cache_clear)
