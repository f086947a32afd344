"""A Ray cluster on machines of its own: a head, workers and a token, to which jobs are submitted from the host."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.faults.namespaces.machines import Machine, Network

RAY = Path(sys.executable).parent / "ray"
GCS_PORT, DASHBOARD_PORT = 6379, 8265
TOKEN = "0123456789abcdef" * 4
STORE_BYTES = 150 << 20
START_TIMEOUT_S = 180.0
STARTS = 3
ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": TOKEN,
    "RAY_DATA_USE_DATASOURCE_V2": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    # As for all tests: by default workers give way to every other process.
    "RAY_worker_niceness": "0",
    # The package as an image has it installed.
    "PYTHONPATH": str(ROOT),
    "PATH": f"{RAY.parent}:{os.environ['PATH']}",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True)
class Job:
    """A submitted job."""

    cluster: "RayCluster"
    name: str

    def state(self) -> tuple[str, int | None]:
        """Return status and exit code as the dashboard states them."""
        found = self.cluster.api(f"/api/jobs/{self.name}")
        return str(found["status"]), found["driver_exit_code"]

    def output(self) -> str:
        """Return what the job printed so far."""
        return str(self.cluster.api(f"/api/jobs/{self.name}/logs")["logs"])

    def wait_for(self, pattern: str, timeout_s: float) -> None:
        """Wait until a line of the job's output matches."""
        until = time.monotonic() + timeout_s
        while not re.search(pattern, self.output(), re.MULTILINE):
            status = self.state()
            assert status[0] in {"PENDING", "RUNNING"}, (status, self.output())
            assert time.monotonic() < until, f"no line {pattern!r} within {timeout_s} s:\n{self.output()}"
            time.sleep(0.5)

    def wait(self, timeout_s: float) -> int | None:
        """Wait for the end; return the exit code."""
        until = time.monotonic() + timeout_s
        while (found := self.state())[0] in {"PENDING", "RUNNING"}:
            assert time.monotonic() < until, f"the job did not end within {timeout_s} s:\n{self.output()}"
            time.sleep(1.0)
        return found[1]

    @property
    def summary(self) -> dict[str, Any]:
        """The step's summary, the last line of JSON."""
        lines = [line for line in self.output().splitlines() if line.startswith('{"step": ')]
        values: dict[str, Any] = json.loads(lines[-1])
        return values


@dataclass
class RayCluster:
    """Ray on the machines of a network; the first machine is the head."""

    network: Network
    environment: dict[str, str] = field(default_factory=lambda: dict(ENVIRONMENT))
    head_environment: dict[str, str] = field(default_factory=dict)
    """Settings of the head alone, such as where its tables are stored."""

    @property
    def head(self) -> Machine:
        return self.network.machines[0]

    @property
    def address(self) -> str:
        """Where jobs are submitted."""
        return f"http://{self.head.address}:{DASHBOARD_PORT}"

    def start_head(self, machine: Machine) -> None:
        """Start a head without CPUs for tasks, as on a real cluster."""
        words = ["--head", f"--port={GCS_PORT}", "--dashboard-host=0.0.0.0", f"--dashboard-port={DASHBOARD_PORT}"]
        self._start(machine, *words, "--num-cpus=0", environment=self.head_environment)

    def start_worker(self, machine: Machine, *, cpus: int) -> None:
        """Join a machine with so many CPUs for tasks."""
        self._start(machine, f"--address={self.head.address}:{GCS_PORT}", f"--num-cpus={cpus}")

    def _start(self, machine: Machine, *words: str, environment: Mapping[str, str] | None = None) -> None:
        """Start Ray on a machine, whose name is a label of its node."""
        flags = [f"--node-ip-address={machine.address}", f"--object-store-memory={STORE_BYTES}"]
        flags += ["--disable-usage-stats", f"--labels=machine={machine.name}"]
        values = {**self.environment, **(environment or {})}
        for _ in range(STARTS):  # Ray gives itself 30 s, which a busy computer may exceed
            done = machine.run(str(RAY), "start", *words, *flags, environment=values, timeout_s=START_TIMEOUT_S)
            if done.returncode == 0:
                return
            machine.power_off()
            machine.boot()
        raise AssertionError(done.stdout + done.stderr)

    def nodes(self) -> list[dict[str, Any]]:
        """Return Ray's own list of nodes, also dead ones."""
        found: list[dict[str, Any]] = self.api("/api/v0/nodes?limit=100")["data"]["result"]["result"]
        return found

    def wait_for_nodes(self, alive: int, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until so many nodes are alive, the head included."""
        until = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(OSError, KeyError):
                if sum(node["state"] == "ALIVE" for node in self.nodes()) == alive:
                    return
            assert time.monotonic() < until, f"{alive} nodes are not alive after {timeout_s} s"
            time.sleep(0.5)

    def work_by_node(self) -> dict[str, Counter[str]]:
        """Return machine -> name of a task or of an actor's method -> how often it finished there."""
        names = {node["node_id"]: node["labels"]["machine"] for node in self.nodes()}
        tasks = self.api("/api/v0/tasks?limit=10000&detail=1")["data"]["result"]["result"]
        found: dict[str, Counter[str]] = {}
        for task in tasks:
            if task["node_id"] in names and task["state"] == "FINISHED":
                found.setdefault(names[task["node_id"]], Counter())[task["name"]] += 1
        return found

    def submit(self, *words: str, flags: Sequence[str] = ()) -> Job:
        """Submit a command of Python as a user on the host does, with `ray job submit` and the token."""
        name = f"job-{time.time_ns()}"
        fixed = ["--address", self.address, "--working-dir", ".", "--submission-id", name, "--no-wait"]
        done = subprocess.run(
            [str(RAY), "job", "submit", *fixed, *flags, "--", "python", *words],
            env={**os.environ, **self.environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return Job(self, name)

    def api(self, path: str, token: str = TOKEN, timeout_s: float = 30.0) -> dict[str, Any]:
        """Return what the dashboard answers to a GET."""
        request = urllib.request.Request(f"{self.address}{path}", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            values: dict[str, Any] = json.load(answer)
        return values

    def wait_for_jobs(self) -> None:
        """Wait until the head accepts jobs."""
        until = time.monotonic() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(AssertionError):
                job = self.submit("-c", "pass")
                assert job.wait(60.0) == 0, job.output()
                return
            assert time.monotonic() < until, "the head accepts no jobs"
            time.sleep(1.0)
