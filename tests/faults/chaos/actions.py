"""Random faults at random times: kills of workers, nodes and the driver, and errors of the object store."""

import contextlib
import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.faults.nodes import Nodes
from tests.faults.s3 import FaultyStore

KINDS = {"worker": 0.45, "store": 0.3, "node": 0.1, "driver": 0.15}
"""Kind of fault -> its share of all faults."""
NODE_AWAY_S = 2.0
MOST = 60
"""Faults of one pipeline; after them it may end undisturbed, however slow the machine is."""
STORE_FAULTS: list[tuple[str, int, str]] = [
    ("status", 500, "GET"),
    ("status", 503, "GET"),
    ("status", 503, "PUT"),
    ("status", 500, "HEAD"),
    ("lost", 500, "PUT"),
    ("cut", 100, "GET"),
    ("reset", 100, "GET"),
]
"""Kind, status or byte, and method of the next few requests."""
MAX_TIMES = 3
"""Requests in a row that fail; a client retries more often."""
NO_WORK = (b"ray::IDLE", b"ray::DashboardAgent", b"ray::RuntimeEnvAgent")
"""A node ends with its agents, and the head is not to be lost: its driver cannot continue."""


@dataclass
class Chaos:
    """Causes faults in a thread of its own while it is entered."""

    nodes: Nodes
    store: FaultyStore
    rng: np.random.Generator
    pause_s: float
    """Mean time between two faults."""
    driver: "subprocess.Popen[bytes] | None" = None
    """The driver of the pipeline; the one to kill."""
    counts: Counter[str] = field(default_factory=Counter)
    broken: list[BaseException] = field(default_factory=list)
    """Why the thread ended early."""
    stop: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Cause faults until the end of the context. Raises what ended the thread before it."""
        self.stop.clear()
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.stop.set()
            thread.join()
            self.store.clear()
        if self.broken:
            msg = f"after {self.counts.total()} faults no further one was caused"
            raise RuntimeError(msg) from self.broken[0]

    def _run(self) -> None:
        try:
            self._cause_faults()
        except Exception as error:  # noqa: BLE001 -- raised in the thread of the pipeline
            self.broken.append(error)

    def _cause_faults(self) -> None:
        while self.counts.total() < MOST and not self.stop.wait(float(self.rng.exponential(self.pause_s))):
            kind = str(self.rng.choice(list(KINDS), p=list(KINDS.values())))
            if getattr(self, f"_{kind}")():
                self.counts[kind] += 1

    def _worker(self) -> bool:
        return self._kill(workers(self.nodes.manager.pid))

    def _driver(self) -> bool:
        return self.driver is not None and self.driver.poll() is None and self._kill([self.driver.pid])

    def _kill(self, processes: list[int]) -> bool:
        if not processes:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(self.rng.choice(processes)), signal.SIGKILL)
            return True
        return False

    def _node(self) -> bool:
        if not self.nodes.kill_any(int(self.rng.integers(1 << 16))):
            return False
        self.stop.wait(NODE_AWAY_S)
        self.nodes.add()
        return True

    def _store(self) -> bool:
        kind, at, method = STORE_FAULTS[self.rng.integers(len(STORE_FAULTS))]
        self.store.add(kind, at, method=method, times=int(self.rng.integers(1, MAX_TIMES + 1)), code="SlowDown")
        return True


def workers(manager: int) -> list[int]:
    """Return the processes that run a task or an actor on any node of this manager."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes()
            is_busy = command.startswith(b"ray::") and not command.startswith(NO_WORK)
            if is_busy and parent(parent(int(folder.name))) == manager:
                found.append(int(folder.name))
    return sorted(found)


def parent(process: int) -> int:
    """Return a process's parent."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()[1])
