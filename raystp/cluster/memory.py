"""Keep freed memory in a process that computes the same again and again.

glibc returns memory at the top of its heap to the kernel once twice the largest freed array is free. A forward pass on
a CPU frees a few arrays of megabytes, so each pass would get all its pages from the kernel again.
"""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of `mallopt`, as in `malloc.h`."""

KEPT_BYTES = 1 << 29
"""Freed memory at the end of the heap that a process keeps at most; a larger array gets memory of its own."""

DOCUMENTED_BYTES = 1 << 25
"""The largest MMAP_THRESHOLD that mallopt(3) documents; a C library may refuse more."""


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next arrays; return False where its C library has no such setting."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl has no `mallopt`
        return False
    is_trimmed_late = mallopt(TRIM_THRESHOLD, KEPT_BYTES) == 1
    return is_trimmed_late and any(mallopt(MMAP_THRESHOLD, size) == 1 for size in (KEPT_BYTES, DOCUMENTED_BYTES))
