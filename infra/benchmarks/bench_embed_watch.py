"""A command and the CPU time of all its processes, sampled while it runs.

Its processes are known by a mark in their environment, which they hand on: so Ray's own (raylet, GCS, workers) count,
though they are no children of the command any more. A process that ended counts with what was seen of it last; one
that lived for less than a sample's time is missed.
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

MARK = "RAYSTP_BENCH_RUN"
EVERY_S = 0.1
TICKS = os.sysconf("SC_CLK_TCK")

Process = tuple[int, int]
"""A process's number and when it was started: numbers are given again."""


@dataclass(frozen=True)
class Watched:
    """A run that has ended."""

    status: int
    said: str
    """The end of what it wrote."""
    times: Float64[np.ndarray, " sample"]
    """Seconds since the epoch."""
    cpu_s: Float64[np.ndarray, " sample"]
    """CPU seconds until then."""

    def cpu_at(self, moment: float) -> float:
        """Return the CPU seconds that were spent until a moment."""
        return float(np.interp(moment, self.times, self.cpu_s))


def watch(command: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> Watched:
    """Run a command to its end, or end it after `timeout_s`."""
    mark = uuid.uuid4().hex
    meter, over = _Meter(f"{MARK}={mark}".encode()), threading.Event()
    thread = threading.Thread(target=meter.run, args=(over,))
    process = subprocess.Popen(
        list(command),
        env={**os.environ, **environment, MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    thread.start()
    try:
        said, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
        said += f"\nit was ended after {timeout_s:.0f} s"
    over.set()
    thread.join()
    return Watched(process.returncode, said[-2000:], np.array(meter.times), np.array(meter.totals))


class _Meter:
    """Adds up what all marked processes have used."""

    def __init__(self, mark: bytes) -> None:
        self.times: list[float] = []
        self.totals: list[float] = []
        self._mark = mark
        self._strangers: set[Process] = set()
        self._seen: dict[Process, int] = {}

    def run(self, over: threading.Event) -> None:
        while not over.wait(EVERY_S):
            self.sample()
        self.sample()

    def sample(self) -> None:
        moment = time.time()
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                self._look(folder)
        self.times.append(moment)
        self.totals.append(sum(self._seen.values()) / TICKS)

    def _look(self, folder: Path) -> None:
        try:
            fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
            process = (int(folder.name), int(fields[19]))
            if process in self._strangers:
                return
            if process not in self._seen and self._mark not in (folder / "environ").read_bytes().split(b"\0"):
                # A process has its parent's environment until it has become what it is to be.
                if time.time() - self._started(process) > 1:
                    self._strangers.add(process)
                return
        except OSError:  # it has ended, or is another user's
            return
        self._seen[process] = int(fields[11]) + int(fields[12])

    @staticmethod
    def _started(process: Process) -> float:
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + process[1] / TICKS
