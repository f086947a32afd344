"""A cluster of one node with a token and a dashboard, to which jobs are submitted as a user does."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

RAY = Path(sys.executable).parent / "ray"
REMOVED_VARIABLES = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "PYTHONPATH")


@dataclass(frozen=True)
class Cluster:
    """A head with a dashboard, and the environment of a user who may submit to it."""

    address: str
    environment: dict[str, str]
    gcs: str
    """Where drivers connect, as `run.address`."""

    def ray(self, *words: str, **changed: str) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, **changed}
        command = [str(RAY), *words]
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)

    def submit(self, *words: str, job: str | None = None, wait: bool = True) -> subprocess.CompletedProcess[str]:
        flags = ["--address", self.address, "--working-dir", "."]
        flags += ["--submission-id", job] if job else []
        flags += [] if wait else ["--no-wait"]
        return self.ray("job", "submit", *flags, "--", "python", *words)

    def state(self, job: str) -> tuple[str, int | None]:
        """Return a job's status and the exit code of its command, as the dashboard states them."""
        token = (Path(self.environment["HOME"]) / ".ray" / "auth_token").read_text().strip()
        url = f"{self.address}/api/jobs/{job}"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
        return found["status"], found["driver_exit_code"]


def summary_of(output: str) -> dict[str, object]:
    """Return the step's summary from the output of the submitting command."""
    lines = [line for line in output.splitlines() if line.startswith('{"step": ')]
    values: dict[str, object] = json.loads(lines[-1])
    return values


@contextlib.contextmanager
def running(home: Path, free_port: Callable[[], int]) -> Iterator[Cluster]:
    """Start a separate cluster with a token in `home`, beside the test session's Ray; end it by its process group."""
    scratch = Path("/tmp") / f"rs-{os.getpid()}"  # short: a Unix socket's path is limited to 107 bytes
    port, dashboard = free_port(), free_port()
    inherited = {name: value for name, value in os.environ.items() if name not in REMOVED_VARIABLES}
    environment = {
        **inherited,
        "HOME": str(home),
        "RAY_AUTH_MODE": "token",
        "PATH": f"{RAY.parent}:{inherited['PATH']}",
    }
    one = Cluster(f"http://127.0.0.1:{dashboard}", environment, f"127.0.0.1:{port}")
    assert one.ray("get-auth-token", "--generate").returncode == 0
    words = ["start", "--head", "--block", "--num-cpus=4", f"--port={port}", f"--dashboard-port={dashboard}"]
    words += ["--node-ip-address=127.0.0.1", "--include-dashboard=true", "--disable-usage-stats"]
    words += [f"--dashboard-agent-listen-port={free_port()}"]  # the default may be the session's own
    words += [f"--temp-dir={scratch}", f"--object-store-memory={300 << 20}"]
    head = subprocess.Popen(
        [str(RAY), *words],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait(one.address, head)
        _wait_for_job_agent(one)
        yield one
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)
        head.wait()
        shutil.rmtree(scratch, ignore_errors=True)


def _wait(address: str, head: subprocess.Popen[bytes]) -> None:
    for _ in range(240):
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(f"{address}/api/version", timeout=2)
            return
        if refused(address):
            return
        assert head.poll() is None
        time.sleep(0.25)
    raise AssertionError(address)


def _wait_for_job_agent(one: Cluster) -> None:
    """Submit an empty job until the agent that accepts jobs is up."""
    for _ in range(30):
        done = one.ray("job", "submit", "--address", one.address, "--", "python", "-c", "pass")
        if done.returncode == 0:
            return
        assert "No available agent" in done.stderr, done.stderr
        time.sleep(1)
    raise AssertionError(done.stderr)


def refused(address: str) -> bool:
    """Return whether the dashboard responds with 401."""
    try:
        urllib.request.urlopen(f"{address}/api/jobs/", timeout=2)
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        return False
    return False
