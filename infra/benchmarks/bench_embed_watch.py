"""Run a command and sample the CPU time of all its processes.

Its processes have a marker in their environment, which child processes inherit. So Ray's own processes (raylet, GCS,
workers) count, though they are no longer children of the command. An ended process counts with its last sample; a
process that lived for less than one sampling interval is missed.
"""

import os
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

MARKER = "RAYSTP_BENCH_RUN"
INTERVAL_S = 0.1
TICKS = os.sysconf("SC_CLK_TCK")

Process = tuple[int, int]
"""A process's number and start time: numbers are reused."""


@dataclass(frozen=True)
class WatchedRun:
    """An ended run."""

    status: int
    output: str
    """The end of its output."""
    times: Float64[np.ndarray, " sample"]
    """Seconds since the epoch."""
    cpu_s: Float64[np.ndarray, " sample"]
    """CPU seconds until these times."""

    def cpu_at(self, time_s: float) -> float:
        """Return the CPU seconds until a time."""
        return float(np.interp(time_s, self.times, self.cpu_s))


def watch(command: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> WatchedRun:
    """Run a command to its end, or kill it after `timeout_s`."""
    marker = uuid.uuid4().hex
    meter, over = _Meter(f"{MARKER}={marker}".encode()), threading.Event()
    thread = threading.Thread(target=meter.run, args=(over,))
    process = subprocess.Popen(
        list(command),
        env={**os.environ, **environment, MARKER: marker},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    thread.start()
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        output += f"\nit was killed after {timeout_s:.0f} s"
    over.set()
    thread.join()
    return WatchedRun(process.returncode, output[-2000:], np.array(meter.times), np.array(meter.totals))


class _Meter:
    """Adds up the CPU time of all marked processes."""

    def __init__(self, marker: bytes) -> None:
        self.times: list[float] = []
        self.totals: list[float] = []
        self._marker = marker
        self._others: set[Process] = set()
        self._ticks: dict[Process, int] = {}

    def run(self, over: threading.Event) -> None:
        while not over.wait(INTERVAL_S):
            self.sample()
        self.sample()

    def sample(self) -> None:
        now = time.time()
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                self._sample(folder)
        self.times.append(now)
        self.totals.append(sum(self._ticks.values()) / TICKS)

    def _sample(self, folder: Path) -> None:
        try:
            fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
            process = (int(folder.name), int(fields[19]))
            if process in self._others:
                return
            if process not in self._ticks and self._marker not in (folder / "environ").read_bytes().split(b"\0"):
                # Between fork and exec a process has its parent's environment.
                if time.time() - self._started(process) > 1:
                    self._others.add(process)
                return
        except OSError:  # ended, or another user's
            return
        self._ticks[process] = int(fields[11]) + int(fields[12])

    @staticmethod
    def _started(process: Process) -> float:
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + process[1] / TICKS
