"""Run a reader with little memory and time: a claim of a file that is believed then fails the test, not the machine."""

import contextlib
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType


class TooLongError(Exception):
    """A reader took longer than it may for a file of some kB."""


@contextlib.contextmanager
def bounded(megabytes: int = 1500, seconds: int = 20) -> Iterator[None]:
    """Allow that much more memory than the process has, and that much time; MemoryError or TooLongError beyond."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    former = signal.signal(signal.SIGALRM, _too_long)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (megabytes << 20), before[1]))
    remaining = signal.alarm(seconds)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGALRM, former)
        signal.alarm(remaining)


def _too_long(signum: int, frame: FrameType | None) -> None:
    raise TooLongError(signum, frame)
