"""Drivers of a step, each a process of its own that may be killed, as `raystp <step> --set key=value` starts it.

They are forked from one process that has imported what a step imports, which takes longer than the step itself.
"""

import json
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.traps import Plot

DONE, FAILED, INCOMPLETE = 0, 1, 3
BUSY_S = 240.0
"""After which a driver hangs, on a busy machine; alone on two cores each ends within 30 s."""
MARK = "RAYSTP_TEST_DRIVER"
"""In the environment of a driver and of all that it starts."""
PRELOADED = [
    "raystp.cli",
    "raystp.steps.tile.step",
    "raystp.steps.embed.step",
    "raystp.steps.impute.step",
    "tests.faults.sabotage",
]


@dataclass
class Driver:
    """A driver that runs, or has ended; `said` is all that it printed."""

    process: Any
    log: Path
    mark: str

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def facts(self) -> dict[str, Any]:
        """The last line, which is for a scheduler."""
        facts: dict[str, Any] = json.loads(self.said.splitlines()[-1])
        return facts

    def end(self, timeout_s: float = BUSY_S) -> int:
        """Wait for its end; return its exit status."""
        self.process.join(timeout_s)
        if self.process.is_alive():
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.join()
            msg = f"the driver had not ended after {timeout_s} s:\n{self.said}"
            raise AssertionError(msg)
        return int(self.process.exitcode)

    def send(self, what: signal.Signals) -> None:
        os.kill(self.process.pid, what)


@dataclass(frozen=True)
class Drivers:
    """Starts drivers, on the nodes that are there."""

    address: str
    folder: Path
    environment: dict[str, str]

    def start(self, step: str, config: dict[str, Any], plot: Plot | None = None) -> Driver:
        """Start a step; `config` is its fields by dotted names."""
        words = [step]
        for key, value in {"run.address": self.address, **config}.items():
            words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
        log = self.folder / f"driver-{time.time_ns()}.txt"
        log.touch()
        context = multiprocessing.get_context("forkserver")
        process = context.Process(target=_drive, args=(words, log, {**self.environment, MARK: log.stem}, plot))
        process.start()
        return Driver(process, log, log.stem)

    def run(self, step: str, config: dict[str, Any], plot: Plot | None = None, timeout_s: float = BUSY_S) -> Driver:
        """Run a step to its end."""
        driver = self.start(step, config, plot)
        driver.end(timeout_s)
        return driver


def preload() -> None:
    """Start the process that drivers are forked from, if there is none yet; it imports while others do other things."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    context.Process(target=_nothing).start()


def _nothing() -> None:
    """Be forked."""


def _drive(words: list[str], log: Path, environment: dict[str, str], plot: Plot | None) -> None:
    """Be the driver."""
    from raystp import cli  # noqa: PLC0415 -- the tests' own process needs none of it
    from tests.faults.sabotage import trapped  # noqa: PLC0415 -- the same

    os.environ.update(environment)
    with log.open("ab", buffering=0) as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    if plot is None:
        sys.exit(cli.main(words))
    with trapped(plot):
        sys.exit(cli.main(words))


def alive(processes: list[int], within_s: float = 10.0) -> list[int]:
    """Return those of the processes that are still there after a while; one that nobody has waited for is not."""
    until = time.monotonic() + within_s
    while left := [process for process in set(processes) if _runs(process)]:
        if time.monotonic() > until:
            return left
        time.sleep(0.1)
    return []


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2]
    except FileNotFoundError:
        return False
    return not state.startswith("Z")
