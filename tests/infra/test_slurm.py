"""The Slurm script: linted, and run with stand-ins for Slurm's commands; once with a real Ray and a real step."""

import os
import random
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from tests.conftest import ROOT

SCRIPT = ROOT / "infra/slurm/raystp.sbatch"
TIMEOUT_S = 60

STAND_INS = {
    # srun: log its arguments, drop its options, and run the command here.
    "srun": 'echo "srun $*" >>"$LOG"; while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "scontrol": 'echo "scontrol $*" >>"$LOG"; if [[ $1 == show ]]; then printf "%s\\n" $NODES; fi',
}
NO_RAY = {
    # A `ray start` that blocks until it is stopped, and a python that runs the test's step.
    "ray": (
        'echo "ray $*" >>"$LOG"; if [[ $1 == start ]]; then exec sleep 300; fi; '
        'mkdir -p "$HOME/.ray"; echo 0123 >"$HOME/.ray/auth_token"'
    ),
    "python": 'if [[ $1 == - ]]; then exit 0; fi; echo "python $*" >>"$LOG"; eval "$STEP"',
}


@dataclass(frozen=True)
class Allocation:
    """The environment of a job: a home folder, stand-ins on its PATH, and their log."""

    folder: Path
    environment: Mapping[str, str]

    @property
    def log(self) -> str:
        file = self.folder / "log"
        return file.read_text() if file.exists() else ""

    def submit(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        command = ["bash", str(SCRIPT), *arguments]
        environment = {**self.environment, **variables}
        return subprocess.Popen(
            command,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait_until(self, text: str) -> None:
        until = time.monotonic() + TIMEOUT_S
        while text not in self.log:
            assert time.monotonic() < until, self.log
            time.sleep(0.05)


Allocate = Callable[[Mapping[str, str]], Allocation]


@pytest.fixture
def allocate(tmp_path: Path) -> Iterator[Allocate]:
    number = _free_port() - 20000

    def make(programs: Mapping[str, str]) -> Allocation:
        (tmp_path / "bin").mkdir()
        for name, text in programs.items():
            program = tmp_path / "bin" / name
            program.write_text(f"#!/bin/bash\n{text}\n")
            program.chmod(0o755)
        variables = {
            "HOME": str(tmp_path),
            "LOG": str(tmp_path / "log"),
            "NODES": "127.0.0.1",
            "PATH": f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "SLURM_CPUS_PER_TASK": "2",
            "SLURM_JOB_ID": str(number),
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_SUBMIT_DIR": str(ROOT),
        }
        return Allocation(tmp_path, variables)

    yield make
    shutil.rmtree(f"/tmp/raystp-{number}", ignore_errors=True)  # the script's scratch folder, if it was not deleted


def _free_port() -> int:
    """Return a free port in the script's range."""
    for port in random.Random(os.getpid()).sample(
        range(20000, 30000), 50
    ):  # parallel runs of the tests draw different ports
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)):
                return port
    pytest.fail("no port is free between 20000 and 30000")


def test_the_script_is_valid_bash_and_passes_its_linter(tool: Callable[[str], str]) -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    done = subprocess.run([tool("shellcheck"), str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('"$scratch"', "$scratch", "SC2086"),
        ('cd "$SLURM_SUBMIT_DIR"', 'cd "$submit_dir"', "SC2154"),
        ("\nfi\n", "\n", "SC1073"),
        ('"${pids[@]}"', '"$pids"', "SC2128"),
    ],
)
def test_the_linter_refuses_a_broken_script(tool: Callable[[str], str], old: str, new: str, word: str) -> None:
    assert old in SCRIPT.read_text()
    broken = SCRIPT.read_text().replace(old, new)
    done = subprocess.run([tool("shellcheck"), "-"], input=broken, capture_output=True, text=True, check=False)
    assert word in done.stdout


def test_slurm_is_told_to_signal_and_requeue() -> None:
    options = re.findall(r"^#SBATCH --(\S+)$", SCRIPT.read_text(), re.M)
    assert {"requeue", "exclusive", "open-mode=append", "ntasks-per-node=1", "signal=B:USR1@120"} <= set(options)
    last = SCRIPT.read_text().rindex("#SBATCH")
    assert not re.search(r"^[^#\s]", SCRIPT.read_text()[:last], re.M)  # Slurm ignores options after the first command


def test_ray_has_every_flag_that_it_is_started_with(options_of: Callable[[Any], set[str]]) -> None:
    from ray.scripts.scripts import start  # noqa: PLC0415 -- only this test pays for the import

    lines = re.sub(r"\\\n\s*", "", SCRIPT.read_text())
    starts = re.findall(r"ray start (.*)", lines)
    assert len(starts) == 2
    assert all(set(re.findall(r"--[\w-]+", line)) <= options_of(start) for line in starts)


def test_head_and_workers_start_and_the_job_exits_with_the_steps_status(allocate: Allocate) -> None:
    allocation = allocate(STAND_INS | NO_RAY)
    joined = 'until grep -q "^srun .*--exclude" "$LOG"; do sleep 0.05; done; exit 3'  # as a step waits for its nodes
    job = allocation.submit("embed", "--config", "/conf/embed.yaml", NODES="127.0.0.1 node2 node3", STEP=joined)
    output, _ = job.communicate(timeout=TIMEOUT_S)
    assert job.returncode == 3, output
    head, worker = re.findall(r"^srun (.*ray start.*)$", allocation.log, re.M)
    port = 20000 + int(allocation.environment["SLURM_JOB_ID"])
    assert "--nodelist=127.0.0.1 ray start --head" in head
    assert f"--node-ip-address=127.0.0.1 --port={port} --num-cpus=2" in head
    assert "--nodes=2 --ntasks=2" in worker
    assert f"--exclude=127.0.0.1 ray start --block --address=127.0.0.1:{port} --num-cpus=2" in worker
    assert "python jobs/embed.py --config /conf/embed.yaml\n" in allocation.log
    assert "ray stop" not in allocation.log  # it would stop this user's other clusters on the node too


def test_only_the_user_can_read_the_token(allocate: Allocate) -> None:
    allocation = allocate(STAND_INS | NO_RAY)
    mode = "[[ $RAY_AUTH_MODE == token && $RAY_ADDRESS == 127.0.0.1:2* ]]"
    job = allocation.submit("embed", STEP=mode)
    output, _ = job.communicate(timeout=TIMEOUT_S)
    assert job.returncode == 0, output
    token = allocation.folder / ".ray" / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert token.read_text().strip() not in output + allocation.log


def test_a_time_limit_stops_all_processes_and_requeues_the_job(allocate: Allocate) -> None:
    allocation = allocate(STAND_INS | NO_RAY)
    step = 'echo $$ >"$HOME/step"; echo started >>"$LOG"; exec sleep 300'
    job = allocation.submit("embed", STEP=step)
    allocation.wait_until("started")
    job.send_signal(signal.SIGUSR1)
    output, _ = job.communicate(timeout=TIMEOUT_S)
    assert job.returncode == 0, output
    assert f"scontrol requeue {allocation.environment['SLURM_JOB_ID']}\n" in allocation.log
    assert not _alive(job.pid)
    with pytest.raises(ProcessLookupError):
        os.kill(int((allocation.folder / "step").read_text()), 0)


def test_a_cancelled_job_stops_all_processes_and_is_not_requeued(allocate: Allocate) -> None:
    allocation = allocate(STAND_INS | NO_RAY)
    job = allocation.submit("embed", STEP="echo started >>$LOG; exec sleep 300")
    allocation.wait_until("started")
    job.terminate()
    job.communicate(timeout=TIMEOUT_S)
    assert job.returncode == 143
    assert "requeue" not in allocation.log
    assert not _alive(job.pid)


@pytest.mark.parametrize(("arguments", "message"), [((), "no step given"), (("embbed",), "no jobs/embbed.py")])
def test_a_wrong_step_is_refused_before_anything_starts(
    allocate: Allocate, arguments: tuple[str, ...], message: str
) -> None:
    allocation = allocate(STAND_INS | NO_RAY)
    job = allocation.submit(*arguments)
    output, _ = job.communicate(timeout=TIMEOUT_S)
    assert job.returncode
    assert message in output
    assert allocation.log == ""


def _alive(session: int) -> list[str]:
    """List the processes of a job that still run."""
    listed = subprocess.run(["ps", "-o", "args=", "--sid", str(session)], capture_output=True, text=True, check=False)
    return listed.stdout.splitlines()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.faults
def test_a_real_step_runs_on_a_real_ray_and_writes_its_artifact(allocate: Allocate) -> None:
    allocation = allocate(STAND_INS)
    section = ad.AnnData(
        X=np.arange(8, dtype=np.float32).reshape(4, 2),
        obs=pd.DataFrame(index=list("abcd")),
        var=pd.DataFrame(index=["G", "H"]),
    )
    section.obsm["spatial"] = np.array([[100.0, 1000.0], [200.0, 1000.0], [100.0, 1100.0], [300.0, 1300.0]])
    section.write_h5ad(allocation.folder / "A.h5ad")
    table = allocation.folder / "slides.csv"
    table.write_text("slide,path,patient,mpp,layout,counts\nA,A.svs,P,0.5,scverse,A.h5ad\n")
    store = allocation.folder / "store"
    job = allocation.submit("spots", "--set", f"slides={table}", "--set", f"run.store={store}", RAY_worker_niceness="0")
    try:
        output, _ = job.communicate(timeout=2 * TIMEOUT_S)
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
    assert job.returncode == 0, output
    assert "4 spots" in output
    assert list(store.glob("spots/default-*/manifest.json"))
    assert not _alive(job.pid)
    assert not Path(f"/tmp/raystp-{allocation.environment['SLURM_JOB_ID']}").exists()
    assert stat.S_IMODE((allocation.folder / ".ray" / "auth_token").stat().st_mode) == 0o600
