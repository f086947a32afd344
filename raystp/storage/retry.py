"""How long a request to a store may take: time without a byte, least bytes per second, and number of attempts.

A socket's timeout starts again at each byte, so a store that sends 1 KB/s would block a read for hours. A
`StallTimeout` measures the progress of one object over all its attempts and threads.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from raystp.errors import StorageError

MAX_PAUSE_S = 5.0
"""The longest pause between two attempts."""
WINDOW_STEPS = 16
"""The window of the average rate moves in this many steps, so it is at most 1 / WINDOW_STEPS longer than configured."""

T = TypeVar("T")


class TransientError(Exception):
    """An attempt failed in a manner that another attempt may not; its text is the reason."""


class UnreachableError(TransientError):
    """A store that answered before cannot be reached: its network is cut, for some seconds or for good."""


@dataclass(frozen=True)
class RetryPolicy:
    """How long and how often a store may fail before the read or write of one object is an error."""

    stall_timeout_s: float = 60.0
    """The longest time without a single byte, all attempts included."""
    min_bytes_per_s: float = 50_000.0
    rate_window_s: float = 30.0
    """The rate is averaged over this time."""
    retries: int = 3
    """Attempts after the first, for 5xx responses, timeouts and broken connections. A store that answered this process
    before, and cannot be reached now, is tried until the stall timeout."""
    backoff_s: float = 0.5
    """The longest pause before the first retry; it doubles at each."""

    @property
    def attempt_timeout_s(self) -> float:
        """The longest wait of one attempt for a byte; all attempts together fit into `stall_timeout_s`."""
        return self.stall_timeout_s / (self.retries + 1)


RETRY_POLICY = RetryPolicy()
"""The default."""


class StallTimeout:
    """The progress of one object's read; threads that read its parts share it."""

    def __init__(self, shown: str, policy: RetryPolicy) -> None:
        self._shown = shown
        self._policy = policy
        self._lock = threading.Lock()
        self._last_byte = time.monotonic()
        self._count = 0
        self._samples = deque([(self._last_byte, 0)])  # (time, bytes until then)
        self._stopped = False

    def add_bytes(self, count: int) -> None:
        """Count bytes that arrived. Raises StorageError if the rate is too low or the read was stopped."""
        policy = self._policy
        with self._lock:
            self._last_byte = time.monotonic()
            self._count += count
            if self._last_byte - self._samples[-1][0] >= policy.rate_window_s / WINDOW_STEPS:
                self._samples.append((self._last_byte, self._count))
            # The oldest sample is the last one that is old enough to average over.
            while len(self._samples) > 1 and self._last_byte - self._samples[1][0] >= policy.rate_window_s:
                self._samples.popleft()
            seconds, received = self._last_byte - self._samples[0][0], self._count - self._samples[0][1]
        self.check()
        if seconds >= policy.rate_window_s and received < policy.min_bytes_per_s * seconds:
            msg = (
                f"the store sends {self._shown} at {received / seconds / 1000:.1f} KB/s over {seconds:.1f} s; the "
                f"minimum is {policy.min_bytes_per_s / 1000:.0f} KB/s, so the read was stopped"
            )
            raise StorageError(msg)

    def check(self) -> None:
        """Raise StorageError if the read was stopped or has stalled."""
        with self._lock:
            stopped, idle_s = self._stopped, time.monotonic() - self._last_byte
        if stopped:
            msg = f"the read of {self._shown} was stopped because another part of it failed"
            raise StorageError(msg)
        if idle_s >= self._policy.stall_timeout_s:
            msg = f"the store of {self._shown} sent no byte for {idle_s:.1f} s, so the read was stopped"
            raise StorageError(msg)

    def idle_s(self) -> float:
        """Return the time since the last byte."""
        with self._lock:
            return time.monotonic() - self._last_byte

    def restart_average(self) -> None:
        """Start the average again, so that the time of a failed attempt does not lower the rate of the next."""
        with self._lock:
            self._samples = deque([(time.monotonic(), self._count)])

    def stop(self) -> None:
        """End every thread that still reads, at its next byte."""
        with self._lock:
            self._stopped = True


def retry(attempt: Callable[[], T], action: str, *, policy: RetryPolicy, stall: StallTimeout) -> T:
    """Return the result of `attempt`, repeated after each TransientError; `action` is as in `read s3://bucket/key`.

    An UnreachableError does not count against the number of attempts. Raises StorageError after the last attempt, or
    where the next one would begin after the stall timeout.
    """
    failed = 0
    while True:
        stall.check()
        pause_s = min(policy.backoff_s * 2 ** min(failed, 16), MAX_PAUSE_S) * random.uniform(0.5, 1.0)
        try:
            return attempt()
        except TransientError as error:
            failed += 1
            idle_s = stall.idle_s()
            is_last = failed > policy.retries and not isinstance(error, UnreachableError)
            if is_last or idle_s + pause_s >= policy.stall_timeout_s:
                attempts = "1 attempt" if failed == 1 else f"{failed} attempts"
                msg = f"cannot {action}: {error}; gave up after {attempts} and {idle_s:.1f} s without a byte"
                raise StorageError(msg) from None
        time.sleep(pause_s)
        stall.restart_average()
