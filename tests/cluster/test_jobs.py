"""`ray job submit`, for real: a cluster with a token, every step and the whole path as jobs, and what a job says."""

import contextlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from raystp.artifacts import resolve
from raystp.models.store import load_model
from raystp.steps.pipeline import step as pipeline
from raystp.steps.tile import step as tile
from raystp.storage import StoragePath
from tests.cluster.conftest import free_port
from tests.conftest import ROOT

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]

RAY = Path(sys.executable).parent / "ray"
STEPS = ("spots", "tile", "embed", "train", "index", "impute", "evaluate")
LEFT_OUT = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "PYTHONPATH")


@dataclass(frozen=True)
class Cluster:
    """A head with a dashboard, and the environment of one who may submit to it."""

    address: str
    environment: dict[str, str]

    def ray(self, *words: str, **changed: str) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, **changed}
        command = [str(RAY), *words]
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)

    def submit(self, *words: str, job: str | None = None, wait: bool = True) -> subprocess.CompletedProcess[str]:
        flags = ["--address", self.address, "--working-dir", "."]
        flags += ["--submission-id", job] if job else []
        flags += [] if wait else ["--no-wait"]
        return self.ray("job", "submit", *flags, "--", "python", *words)


def _last(said: str) -> dict[str, object]:
    """Return the summary that a step printed last, found among the lines of the submitting command."""
    lines = [line for line in said.splitlines() if line.startswith('{"step": ')]
    values: dict[str, object] = json.loads(lines[-1])
    return values


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of its own, with a token, next to the session's."""
    home = tmp_path_factory.mktemp("home")
    scratch = Path("/tmp") / f"rs-{os.getpid()}"  # short: the name of a Unix socket has room for 107 letters
    port, dashboard = free_port(), free_port()
    kept = {name: value for name, value in os.environ.items() if name not in LEFT_OUT}
    environment = {**kept, "HOME": str(home), "RAY_AUTH_MODE": "token", "PATH": f"{RAY.parent}:{kept['PATH']}"}
    one = Cluster(f"http://127.0.0.1:{dashboard}", environment)
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
        _try_until_taken(one)
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
        if _refused(address):
            return
        assert head.poll() is None
        time.sleep(0.25)
    raise AssertionError(address)


def _try_until_taken(one: Cluster) -> None:
    """Submit a job that does nothing until the agent that takes jobs is there."""
    for _ in range(30):
        done = one.ray("job", "submit", "--address", one.address, "--", "python", "-c", "pass")
        if done.returncode == 0:
            return
        assert "No available agent" in done.stderr, done.stderr
        time.sleep(1)
    raise AssertionError(done.stderr)


def _refused(address: str) -> bool:
    """Say whether the dashboard answers, and does so with 401."""
    try:
        urllib.request.urlopen(f"{address}/api/jobs/", timeout=2)
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        return False
    return False


@pytest.fixture(scope="module")
def cohort(smoke_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke cohort's slide table without its damaged slide."""
    drawn = resolve(str(smoke_store), "demo/smoke", "demo").path
    lines = (drawn / "slides.csv").read_bytes().decode().splitlines()
    table = tmp_path_factory.mktemp("cohort") / "slides.csv"
    whole = [line.replace(",slides/", f",{drawn}/slides/").replace(",counts/", f",{drawn}/counts/") for line in lines]
    table.write_text("\n".join(line for line in whole if not line.startswith("damaged")) + "\n")
    return table


def _words(step: str, store: Path, cohort: Path) -> list[str]:
    words = ["--config", f"conf/{step}/smoke.yaml", "--set", f"run.store={store}"]
    return [*words, "--set", f"slides={cohort}"] if step in {"spots", "tile", "pipeline"} else words


@pytest.fixture(scope="module")
def submitted(cluster: Cluster, cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store in which every step has run as a job, one after the other."""
    store = tmp_path_factory.mktemp("submitted") / "store"
    for step in STEPS:
        done = cluster.submit(f"jobs/{step}.py", *_words(step, store, cohort))
        assert done.returncode == 0, done.stdout + done.stderr
        last = _last(done.stdout)
        assert (last["step"], last["status"], last["exit"]) == (step, "done", 0)
        assert str(last["artifact"]).startswith(f"{store}/{step}/smoke-")
    return store


def _names(store: Path) -> set[str]:
    return {path.parent.relative_to(store).as_posix() for path in store.glob("*/*/manifest.json")}


def _check_alike(one: Path, other: Path) -> None:
    """Two stores hold the same artifacts, and in them the same vectors, predictions and weights."""
    assert _names(one) == _names(other)
    for step, folder in (("embed", "embeddings"), ("impute", "predictions")):
        for place in sorted(one.glob(f"{step}/*")):
            theirs = _tables(other / place.relative_to(one) / folder)
            for left, right in zip(_tables(place / folder), theirs, strict=True):
                np.testing.assert_allclose(left, right, atol=1e-5)
    for place in sorted(one.glob("train/*")):
        theirs_too = load_model(StoragePath.of(other / place.relative_to(one)))[1]
        for name, values in load_model(StoragePath.of(place))[1].items():
            np.testing.assert_allclose(theirs_too[name], values, atol=1e-5, err_msg=name)


def _tables(folder: Path) -> list[np.ndarray]:
    """Return the vectors of all tables in a folder, file by file."""
    files = sorted(folder.rglob("*.parquet"))
    assert files
    columns = [pq.read_table(file).columns[-1].combine_chunks() for file in files]
    return [np.asarray(column.flatten()).reshape(len(column), -1) for column in columns]


def test_every_step_as_a_job_leaves_what_it_leaves_locally(submitted: Path, cohort: Path, tmp_path: Path) -> None:
    for step in STEPS:
        module = importlib.import_module(f"raystp.steps.{step}.step")
        config, *overrides = _words(step, tmp_path / "store", cohort)[1::2]
        module.run(module.CONFIG.load(ROOT / config, overrides))
    _check_alike(tmp_path / "store", submitted)


def test_without_the_token_nothing_is_taken(cluster: Cluster, tmp_path: Path) -> None:
    stranger = cluster.ray(
        "job", "submit", "--address", cluster.address, "--", "python", "-c", "print('in')", HOME=str(tmp_path)
    )
    assert stranger.returncode != 0
    assert "in\n" not in stranger.stdout
    assert "token" in (stranger.stdout + stranger.stderr).lower()
    assert _refused(cluster.address)


def test_a_step_as_a_job_leaves_what_it_leaves_locally(
    cluster: Cluster, smoke_store: Path, cohort: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(smoke_store / "spots", store / "spots")
    words = _words("tile", store, cohort)
    done = cluster.submit("jobs/tile.py", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    last = _last(done.stdout)
    assert (last["step"], last["status"], last["exit"]) == ("tile", "done", 0)
    (store / "tile").rename(tmp_path / "submitted")
    config, *overrides = words[1::2]
    here = tile.run(tile.CONFIG.load(ROOT / config, overrides))
    assert here.path.uri == last["artifact"]
    for table in (store / "tile").rglob("*.parquet"):
        there = tmp_path / "submitted" / table.relative_to(store / "tile")
        assert pq.read_table(table).equals(pq.read_table(there))


def test_a_pipeline_that_was_killed_and_submitted_again_does_nothing_twice(
    cluster: Cluster, cohort: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    words = ["jobs/pipeline.py", *_words("pipeline", store, cohort)]
    assert cluster.submit(*words, job="first", wait=False).returncode == 0
    while not (done := sorted(store.glob("embed/*/manifest.json"))):
        status = cluster.ray("job", "status", "--address", cluster.address, "first").stdout
        assert "failed" not in status.lower(), status
        time.sleep(0.5)
    assert cluster.ray("job", "stop", "--address", cluster.address, "first").returncode == 0
    assert not list(store.glob("pipeline/*/manifest.json"))
    early = {path: path.stat().st_mtime_ns for path in [*done, *store.glob("spots/*/manifest.json")]}
    again = cluster.submit(*words, job="second")
    assert again.returncode == 0, again.stdout + again.stderr
    last = _last(again.stdout)
    assert (last["status"], last["exit"], last["failures"]) == ("done", 0, 0)
    assert {path: path.stat().st_mtime_ns for path in early} == early
    config, *overrides = _words("pipeline", tmp_path / "local", cohort)[1::2]
    here = pipeline.run(pipeline.CONFIG.load(ROOT / config, overrides))
    assert here.manifest.fingerprint == last["fingerprint"]
    _check_alike(tmp_path / "local", store)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["jobs/tile.py", "--set", "slides=slides.csv"],
            "  slides: 'slides.csv' is relative; an absolute path or a URI would do",
        ),
        (
            ["jobs/train.py", "--config", "conf/train/smoke.yaml", "--set", "run.store=/none/store"],
            "ArtifactError: no artifact 'spots/smoke' in /none/store: the 'spots' step has left nothing there",
        ),
    ],
    ids=["relative path", "missing input"],
)
def test_a_job_that_cannot_run_fails_with_a_sentence(cluster: Cluster, words: list[str], said: str) -> None:
    done = cluster.submit(*words)
    assert done.returncode != 0
    lines = done.stdout.splitlines()
    assert any(line.startswith(said) for line in lines), done.stdout
    assert "Traceback" not in done.stdout
    last = _last(done.stdout)
    assert (last["status"], last["exit"]) == ("failed", 1)
