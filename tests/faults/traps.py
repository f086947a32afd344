"""Fault injection: which fault, and where; plain values that are pickled with the work, and counted in files.

A trap triggers a fault in the process that does the work, at most `times` times. The count is kept in files, since a
killed process cannot count. `sabotage` adds the traps to the product's work.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from raystp.slides.tiled import read_ahead
from raystp.storage.retry import RETRY_POLICY

MANY = 1 << 30
FULL_DISK_BYTES = 1000
"""Size limit of a file on a simulated full disk."""


@dataclass(frozen=True)
class Trap:
    """A fault at one point of the work."""

    how: str
    """`kill`, `exit`, `abort`, `segfault`, `leave` (sys.exit), `hang`, `hold` (a hang that holds the GIL),
    `slow` (by `seconds`), or `full` (no file may grow beyond FULL_DISK_BYTES)."""
    at: str = "read"
    """`read`, `encode`, `commit` (before it), `writing` (while the table is written), `record` (between the table and
    its commit record), `committed` (after it), `tile` (before a slide is tiled), `impute` (before it is predicted)."""
    slide: str = ""
    """The slide; empty for all slides."""
    unit: str = ""
    start: int = 0
    """For a read: the first tile of the unit from which the fault triggers."""
    times: int = 1
    seconds: float = 0.0

    def trigger(self) -> None:
        """Cause the fault."""
        if self.how == "slow":
            time.sleep(self.seconds)
        elif self.how == "leave":
            sys.exit(1)
        elif self.how == "hang":
            time.sleep(3600)
        elif self.how == "hold":
            ctypes.PyDLL(None).sleep(3600)
        elif self.how == "exit":
            os._exit(1)
        elif self.how == "abort":
            os.abort()
        elif self.how == "segfault":
            ctypes.string_at(0)
        elif self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(3600)  # until the signal arrives


@dataclass(frozen=True)
class FaultPlan:
    """The traps of one run, and a folder with their counts and a log of events."""

    traps: tuple[Trap, ...]
    folder: Path
    patience_s: float | None = None
    """Stall timeout of a worker's reads from the store, if not the product's default."""
    prefetch: bool = True
    """Whether a worker fetches a unit's ranges before they are needed."""

    def due(self, at: str, slide: str, unit: str = "", stop: int = MANY) -> list[Trap]:
        """Return the traps that trigger now, and count them."""
        found = []
        for number, trap in enumerate(self.traps):
            matches = trap.at == at and trap.slide in {"", slide} and trap.unit in {"", unit} and stop > trap.start
            if matches and self._counted(number, trap.times):
                found.append(trap)
        return found

    def log_event(self, event: str) -> None:
        """Log an event with this process's pid."""
        with (self.folder / "log.txt").open("a") as log:
            log.write(f"{event} {os.getpid()}\n")

    def logged(self, event: str) -> list[int]:
        """Return the pids of the processes that logged an event."""
        log = self.folder / "log.txt"
        lines = [line.rpartition(" ") for line in log.read_text().splitlines()] if log.exists() else []
        return [int(process) for one, _, process in lines if one == event]

    def peak_mb(self) -> int:
        """Return the peak memory of the work's processes in MB."""
        log = (self.folder / "log.txt").read_text().splitlines()
        return max(int(line.split()[1]) for line in log if line.startswith("peak "))

    def triggered(self) -> list[str]:
        """Return a name for each time a trap triggered."""
        return sorted(path.name for path in self.folder.glob("triggered-*"))

    def set_up(self) -> None:
        """Set the timeouts and the prefetch of this process."""
        if not self.prefetch:
            read_ahead.PREFETCH_BYTES = 0
        if self.patience_s is not None:
            object.__setattr__(RETRY_POLICY, "stall_timeout_s", self.patience_s)
            object.__setattr__(RETRY_POLICY, "rate_window_s", self.patience_s)

    def _counted(self, number: int, times: int) -> bool:
        for time_ in range(times):
            with contextlib.suppress(FileExistsError):
                (self.folder / f"triggered-{number}-{self.traps[number].how}-{time_}").touch(exist_ok=False)
                return True
        return False
