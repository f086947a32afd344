"""A command, and the CPU time and the memory of it and all its descendants, sampled while it runs.

A process that ended counts with the CPU time that was seen of it last. Memory is the sum of PSS: a page that several
share is split among them, so that the sum is what the machine holds.
"""

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

EVERY_S = 0.25
TICKS = os.sysconf("SC_CLK_TCK")
PARENT, USER, KERNEL, STARTED = 1, 11, 12, 19
"""Fields of /proc/*/stat, counted from behind the command's name."""


@dataclass
class Watched:
    """A run, while it goes on and when it has ended."""

    times: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    def cpu_at(self, moment: float) -> float:
        """Return the CPU seconds that were spent until a moment."""
        return float(np.interp(moment, self.times, self.cpu_s))


def watch(command: Sequence[str], timeout_s: float) -> Watched:
    """Run a command to its end; RuntimeError with what it said where it fails or takes longer."""
    process = subprocess.Popen(list(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    found, over = Watched(), threading.Event()
    thread = threading.Thread(target=sample, args=(process.pid, found, over))
    thread.start()
    try:
        said, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.terminate()
        said, _ = process.communicate()
    finally:
        over.set()
        thread.join()
    if process.returncode:
        msg = f"{command[1]} ended with {process.returncode}: {said[-2000:]}"
        raise RuntimeError(msg)
    return found


def sample(root: int, found: Watched, over: threading.Event) -> None:
    """Sample a process and its descendants until it is over."""
    seen: dict[tuple[int, int], int] = {}
    while not over.wait(EVERY_S):
        moment = time.time()
        alive = descendants(root)
        for process, fields in alive.items():
            seen[process, fields[STARTED]] = fields[USER] + fields[KERNEL]
        found.times.append(moment)
        found.cpu_s.append(sum(seen.values()) / TICKS)
        found.peak_bytes = max(found.peak_bytes, sum(_pss(process) for process in alive))


def descendants(root: int) -> dict[int, list[int]]:
    """Return the fields of a process and of all that it, or they, have started."""
    fields: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "stat").read_bytes().rpartition(b")")[2].split()
            except OSError:  # it has ended
                continue
            fields[int(folder.name)] = [0, *(int(word) for word in words[1:])]
    found: dict[int, list[int]] = {}
    front = {root}
    while front:
        found |= {process: fields[process] for process in front if process in fields}
        front = {process for process, one in fields.items() if one[PARENT] in front} - found.keys()
    return found


def _pss(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:  # it has ended
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)
