"""A stall timeout ends reads that stall or are too slow, and no others; retries stay within it."""

import threading
import time

import pytest

from raystp.errors import StorageError
from raystp.storage.retry import RETRY_POLICY, RetryPolicy, StallTimeout

SHORT = RetryPolicy(stall_timeout_s=0.3, min_bytes_per_s=1000.0, rate_window_s=0.4)


def drip(stall: StallTimeout) -> None:
    """Add one byte 50 times a second for 2 s."""
    for _ in range(100):
        time.sleep(0.02)
        stall.add_bytes(1)


def test_all_attempts_fit_into_the_stall_timeout() -> None:
    assert RETRY_POLICY.attempt_timeout_s * (RETRY_POLICY.retries + 1) == RETRY_POLICY.stall_timeout_s
    backoffs = RETRY_POLICY.backoff_s * (2**RETRY_POLICY.retries - 1)
    assert backoffs <= 0.2 * RETRY_POLICY.stall_timeout_s


def test_a_read_at_the_minimum_rate_continues() -> None:
    stall = StallTimeout("it", SHORT)
    for _ in range(16):
        time.sleep(0.05)
        stall.add_bytes(200)  # 4000 bytes a second at most


def test_a_read_below_the_minimum_rate_ends_after_the_window() -> None:
    stall, started = StallTimeout("it", SHORT), time.monotonic()
    with pytest.raises(StorageError, match=r"the store sends it at 0\.\d KB/s over 0\.\d s; the minimum is 1 KB/s"):
        drip(stall)
    assert time.monotonic() - started >= SHORT.rate_window_s


def test_a_read_that_becomes_too_slow_ends() -> None:
    stall = StallTimeout("it", SHORT)
    stall.add_bytes(1_000_000)
    with pytest.raises(StorageError, match="the minimum is 1 KB/s"):
        drip(stall)


def test_a_stalled_read_ends() -> None:
    stall = StallTimeout("it", SHORT)
    stall.add_bytes(1_000_000)
    time.sleep(0.31)
    with pytest.raises(StorageError, match=r"the store of it sent no byte for 0\.\d s"):
        stall.check()


def test_a_new_attempt_restarts_the_average() -> None:
    stall = StallTimeout("it", RetryPolicy(stall_timeout_s=2.0, min_bytes_per_s=1000.0, rate_window_s=0.4))
    time.sleep(0.5)
    stall.restart_average()
    stall.add_bytes(1)
    with pytest.raises(StorageError, match="the minimum is 1 KB/s"):
        drip(stall)


def test_the_bytes_of_all_threads_are_added() -> None:
    stall, faults = StallTimeout("it", SHORT), []

    def read() -> None:
        for _ in range(16):
            time.sleep(0.05)
            try:
                stall.add_bytes(60)  # 1200 bytes a second at most, and below the least under any load alone
            except StorageError as error:
                faults.append(error)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_a_stopped_read_ends_at_its_next_byte() -> None:
    stall = StallTimeout("it", SHORT)
    stall.stop()
    with pytest.raises(StorageError, match="the read of it was stopped"):
        stall.add_bytes(1)
