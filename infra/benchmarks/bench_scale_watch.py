"""CPU time and memory of a command and all its descendants, sampled while it runs.

A process that has ended counts with its last sampled CPU time. Memory is the sum of PSS: a page shared by several
processes is divided among them, so the sum is the memory in use.
"""

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

INTERVAL_S = 0.25
TICKS = os.sysconf("SC_CLK_TCK")
PARENT, USER, KERNEL, STARTED = 1, 11, 12, 19
"""Fields of /proc/*/stat, counted after the command's name."""


@dataclass
class Samples:
    """Samples of a run."""

    times: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    def cpu_at(self, moment: float) -> float:
        """Return the CPU seconds used until a moment."""
        return float(np.interp(moment, self.times, self.cpu_s))


def watch(command: Sequence[str], timeout_s: float) -> Samples:
    """Run a command to its end; raise RuntimeError with its output if it fails or exceeds `timeout_s`."""
    process = subprocess.Popen(list(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    samples, finished = Samples(), threading.Event()
    thread = threading.Thread(target=sample, args=(process.pid, samples, finished))
    thread.start()
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.terminate()
        output, _ = process.communicate()
    finally:
        finished.set()
        thread.join()
    if process.returncode:
        msg = f"{command[1]} exited with status {process.returncode}: {output[-2000:]}"
        raise RuntimeError(msg)
    return samples


def sample(root: int, samples: Samples, finished: threading.Event) -> None:
    """Sample a process and its descendants until `finished` is set."""
    seen: dict[tuple[int, int], int] = {}
    while not finished.wait(INTERVAL_S):
        moment = time.time()
        alive = descendants(root)
        for process, fields in alive.items():
            seen[process, fields[STARTED]] = fields[USER] + fields[KERNEL]
        samples.times.append(moment)
        samples.cpu_s.append(sum(seen.values()) / TICKS)
        samples.peak_bytes = max(samples.peak_bytes, sum(_pss(process) for process in alive))


def descendants(root: int) -> dict[int, list[int]]:
    """Return the fields of a process and of its descendants."""
    fields: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "stat").read_bytes().rpartition(b")")[2].split()
            except OSError:  # it has exited
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
    except OSError:  # it has exited
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)
