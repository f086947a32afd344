"""Kernels that numba compiles, loaded only by a process that has much to do.

Importing numba and loading compiled code takes about half a CPU-second. Until a kernel has been asked for often enough
to make up for it, its caller does the same work without it, to the same values.
"""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Kernel = TypeVar("Kernel")


class LateKernel(Generic[Kernel]):
    """A kernel that `load` returns. Threads may share it."""

    def __init__(self, load: Callable[[], Kernel], *, after: int) -> None:
        self._load, self._uses_left = load, after
        self._kernel: Kernel | None = None
        self._lock = threading.Lock()

    def use(self, times: int = 1) -> Kernel | None:
        """Return the kernel, or None in the first `after` uses of the process."""
        if self._kernel is not None:
            return self._kernel
        with self._lock:
            self._uses_left -= times
            if self._uses_left >= 0:
                return None
        return self.load()

    def load(self) -> Kernel:
        """Return the kernel at once."""
        with self._lock:
            if self._kernel is None:
                self._kernel = self._load()
            return self._kernel
