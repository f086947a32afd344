"""What goes wrong, and where: plain values that travel with the work, and are counted in files.

A trap springs in the process that does the work, as often as it says. It is counted by files, since a process that
ends cannot count. `sabotage` sets the traps around the product's own work.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from raystp.storage.retry import RETRY_POLICY

MANY = 1 << 30
LITTLE = 1000
"""Bytes that a file may have on a full disk."""


@dataclass(frozen=True)
class Trap:
    """Something that goes wrong at one place of the work."""

    how: str
    """`kill`, `exit`, `abort`, `segfault`, `leave` (sys.exit), `hang`, `hold` (a hang that holds Python's lock),
    `slow` (by `seconds`), or `full` (no file may grow beyond LITTLE)."""
    at: str = "read"
    """`read`, `encode`, `commit` (before it), `aside` (while the table is written), `record` (between the table and its
    commit record), `committed` (after it); `tile`, before a slide is tiled; or `impute`, before it is predicted."""
    slide: str = ""
    """Of which slide; of all, where it is empty."""
    unit: str = ""
    start: int = 0
    """From which tile of the unit on, where it is a read."""
    times: int = 1
    seconds: float = 0.0

    def spring(self) -> None:
        """Do it."""
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
            time.sleep(3600)  # the signal is on its way


@dataclass(frozen=True)
class Plot:
    """The traps of one run, and the folder that counts how often each has sprung and what was begun."""

    traps: tuple[Trap, ...]
    folder: Path
    patience_s: float | None = None
    """How long a worker waits for a byte of the store, where not as long as the product says."""

    def due(self, at: str, slide: str, unit: str = "", stop: int = MANY) -> list[Trap]:
        """Return the traps that spring here and now."""
        found = []
        for number, trap in enumerate(self.traps):
            here = trap.at == at and trap.slide in {"", slide} and trap.unit in {"", unit} and stop > trap.start
            if here and self._counted(number, trap.times):
                found.append(trap)
        return found

    def note(self, word: str) -> None:
        """Write down what happens in this process."""
        with (self.folder / "log.txt").open("a") as log:
            log.write(f"{word} {os.getpid()}\n")

    def noted(self, word: str) -> list[int]:
        """Return the processes that wrote this down."""
        log = self.folder / "log.txt"
        lines = [line.rpartition(" ") for line in log.read_text().splitlines()] if log.exists() else []
        return [int(process) for said, _, process in lines if said == word]

    def peak_mb(self) -> int:
        """Return the most memory that a process of the work has held."""
        log = (self.folder / "log.txt").read_text().splitlines()
        return max(int(line.split()[1]) for line in log if line.startswith("peak "))

    def sprung(self) -> list[str]:
        """Return the traps that have sprung, once for each time."""
        return sorted(path.name for path in self.folder.glob("sprung-*"))

    def set_up(self) -> None:
        """Make the patience of this process that of the plot."""
        if self.patience_s is not None:
            object.__setattr__(RETRY_POLICY, "stall_timeout_s", self.patience_s)
            object.__setattr__(RETRY_POLICY, "rate_window_s", self.patience_s)

    def _counted(self, number: int, times: int) -> bool:
        for time_ in range(times):
            with contextlib.suppress(FileExistsError):
                (self.folder / f"sprung-{number}-{self.traps[number].how}-{time_}").touch(exist_ok=False)
                return True
        return False
