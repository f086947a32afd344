"""Drivers of a step: separate processes that a test may kill, equivalent to `raystp <step> --set key=value`.

They are forked from a process that has already imported raystp, since the imports take longer than the step.
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

from tests.faults.traps import FaultPlan

DONE, FAILED, INCOMPLETE = 0, 1, 3
DRIVER_TIMEOUT_S = 240.0
"""Time limit of a driver on a busy machine; alone on two cores each takes at most 30 s."""
DRIVER_VARIABLE = "RAYSTP_TEST_DRIVER"
"""Environment variable of a driver and all its child processes."""
PRELOAD = [
    "raystp.cli",
    "raystp.steps.tile.step",
    "raystp.steps.embed.step",
    "raystp.steps.impute.step",
    "tests.faults.sabotage",
]


@dataclass
class Driver:
    """A running or finished driver; `output` is all that it printed."""

    process: Any
    log: Path
    name: str

    @property
    def output(self) -> str:
        return self.log.read_text()

    @property
    def summary(self) -> dict[str, Any]:
        """The last line of the output, a JSON summary for schedulers."""
        values: dict[str, Any] = json.loads(self.output.splitlines()[-1])
        return values

    def wait(self, timeout_s: float = DRIVER_TIMEOUT_S) -> int:
        """Wait until the driver exits; return its exit status."""
        self.process.join(timeout_s)
        if self.process.is_alive():
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.join()
            msg = f"the driver did not exit within {timeout_s} s:\n{self.output}"
            raise AssertionError(msg)
        return int(self.process.exitcode)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)


@dataclass(frozen=True)
class Drivers:
    """Starts drivers that connect to the cluster."""

    address: str
    folder: Path
    environment: dict[str, str]

    def start(self, step: str, config: dict[str, Any], plan: FaultPlan | None = None) -> Driver:
        """Start a step; `config` has dotted field names."""
        words = [step]
        for key, value in {"run.address": self.address, **config}.items():
            words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
        log = self.folder / f"driver-{time.time_ns()}.txt"
        log.touch()
        context = multiprocessing.get_context("forkserver")
        process = context.Process(
            target=_drive, args=(words, log, {**self.environment, DRIVER_VARIABLE: log.stem}, plan)
        )
        process.start()
        return Driver(process, log, log.stem)

    def run(
        self, step: str, config: dict[str, Any], plan: FaultPlan | None = None, timeout_s: float = DRIVER_TIMEOUT_S
    ) -> Driver:
        """Run a step and wait for it."""
        driver = self.start(step, config, plan)
        driver.wait(timeout_s)
        return driver


def preload() -> None:
    """Start the process from which drivers are forked; it imports in the background."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    context.Process(target=_do_nothing).start()


def _do_nothing() -> None:
    """Exit at once; starting this process starts the fork server."""


def _drive(words: list[str], log: Path, environment: dict[str, str], plan: FaultPlan | None) -> None:
    """Run the step in this process."""
    from raystp import cli  # noqa: PLC0415 -- the tests' own process needs none of it
    from tests.faults.sabotage import trapped  # noqa: PLC0415 -- the same

    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background process inherits that it is ignored
    with log.open("ab", buffering=0) as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    if plan is None:
        sys.exit(cli.main(words))
    with trapped(plan):
        sys.exit(cli.main(words))


def alive(processes: list[int], within_s: float = 10.0) -> list[int]:
    """Return the processes that still run after `within_s`; zombies do not count."""
    until = time.monotonic() + within_s
    while remaining := [process for process in set(processes) if _runs(process)]:
        if time.monotonic() > until:
            return remaining
        time.sleep(0.1)
    return []


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2]
    except FileNotFoundError:
        return False
    return not state.startswith("Z")
