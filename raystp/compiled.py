"""Functions that numba compiles.

Compiled code is cached beside its source or in the user's cache. Where neither can be written, or a cached file is
damaged, each process compiles it again, in some seconds.
"""

from collections.abc import Callable
from typing import Any


def compiled(function: Callable[..., None], signature: Any, **flags: Any) -> Callable[..., None]:
    """Return a function compiled for one signature, or loaded from the cache; it releases the GIL.

    `flags` are numba's, such as `fastmath`.
    """
    from numba import njit  # noqa: PLC0415 -- half a second, and only a process with much to do needs it

    try:
        kernel: Callable[..., None] = njit(signature, cache=True, nogil=True, **flags)(function)
    except Exception:  # noqa: BLE001 -- no folder to write, a full disk, or a cached file that is damaged in any way
        kernel = njit(signature, nogil=True, **flags)(function)
    return kernel
