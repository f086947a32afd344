"""Keep freed memory in a process that computes the same again and again.

glibc returns memory at the top of its heap to the kernel once twice the largest freed array is free. A forward pass on
a CPU frees a few arrays of megabytes, so each pass would get all its pages from the kernel again: 88 page faults a tile
for `tiny`, a third of the network's time.
"""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of `mallopt`, as in `malloc.h`."""

KEPT_BYTES = 1 << 29
"""Most freed memory that a process keeps; a larger array gets memory of its own, and returns it."""


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next arrays; return False where its C library has no such setting."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl has no `mallopt`
        return False
    return all(mallopt(parameter, KEPT_BYTES) == 1 for parameter in (MMAP_THRESHOLD, TRIM_THRESHOLD))
