"""A lock that several processes and threads of one machine share: alone, or together with other readers.

`flock` on a file of its own. The kernel lets go of it when its holder dies, however that happens, so nothing is ever
left locked. Not for network file systems.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(path: Path, *, alone: bool, wait: bool = True) -> Iterator[bool]:
    """Hold the lock; yields whether it is held, which is False only where `wait` is and another has it.

    Whoever holds it alone may remove the file: those who waited on the removed one then wait on the new one.
    """
    how = (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB)
    while True:
        opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(opened, how)
            except BlockingIOError:
                yield False
                return
            if _is_at(path, opened):
                yield True
                return
        finally:
            os.close(opened)


def _is_at(path: Path, opened: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(opened))
    except FileNotFoundError:
        return False
