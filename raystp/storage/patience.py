"""How long a read may take before it is given up: by the time without a byte, and by the bytes per second.

Time-outs of a socket start anew at each byte, so a store that drips 1 KB/s would hold a read for ever; a
`StallTimeout` sees the object as a whole, over all its retries and threads.
"""

import threading
import time
from collections import deque
from dataclasses import dataclass

from raystp.errors import StorageError

MARKS = 16
"""In how many steps the average moves on: it is over at most 1 / MARKS more time than was asked."""


@dataclass(frozen=True)
class RetryPolicy:
    """What a store is allowed before a read of one object is an error."""

    without_progress_s: float = 60.0
    """The longest time in which not one byte comes, all retries included."""
    least_bytes_per_s: float = 50_000.0
    averaged_over_s: float = 30.0
    """Over which time the least rate must be held."""
    retries: int = 3
    """After a 5xx answer, a time-out, or a connection that breaks: how often the rest is asked for again."""
    backoff_s: float = 0.5
    """The longest pause before the first retry; it doubles at each."""

    @property
    def try_s(self) -> float:
        """How long one try waits for a byte: short enough that all of them fit."""
        return self.without_progress_s / (self.retries + 1)


RETRY_POLICY = RetryPolicy()
"""What is taken where nothing is asked for."""


class StallTimeout:
    """The clock of one object's read; safe to share among the threads that read its parts."""

    def __init__(self, shown: str, patience: RetryPolicy) -> None:
        self._shown = shown
        self._patience = patience
        self._lock = threading.Lock()
        self._moved = time.monotonic()
        self._count = 0
        self._marks = deque([(self._moved, 0)])  # (when, bytes until then)
        self._stopped = False

    def arrived(self, count: int) -> None:
        """Note that bytes came. Raises StorageError where they come too slowly, or nobody waits for them any more."""
        patience = self._patience
        with self._lock:
            self._moved = time.monotonic()
            self._count += count
            if self._moved - self._marks[-1][0] >= patience.averaged_over_s / MARKS:
                self._marks.append((self._moved, self._count))
            # The oldest mark is the last one that is old enough to average over.
            while len(self._marks) > 1 and self._moved - self._marks[1][0] >= patience.averaged_over_s:
                self._marks.popleft()
            seconds, came = self._moved - self._marks[0][0], self._count - self._marks[0][1]
        self.check()
        if seconds >= patience.averaged_over_s and came < patience.least_bytes_per_s * seconds:
            msg = (
                f"the store sends {self._shown} at {came / seconds / 1000:.1f} KB/s over {seconds:.1f} s, and at "
                f"least {patience.least_bytes_per_s / 1000:.0f} KB/s are wanted; the read was given up"
            )
            raise StorageError(msg)

    def check(self) -> None:
        """Raise StorageError where the read has been stopped, or stands still."""
        with self._lock:
            stopped, still = self._stopped, time.monotonic() - self._moved
        if stopped:
            msg = f"the read of {self._shown} was stopped, since another part of it failed"
            raise StorageError(msg)
        if still >= self._patience.without_progress_s:
            msg = f"the store of {self._shown} sent no byte for {still:.1f} s; the read was given up"
            raise StorageError(msg)

    def try_again(self) -> None:
        """Average anew: the time of a try that failed says nothing of the next one's rate."""
        with self._lock:
            self._marks = deque([(time.monotonic(), self._count)])

    def stop(self) -> None:
        """Let every thread that still reads end at its next byte."""
        with self._lock:
            self._stopped = True
