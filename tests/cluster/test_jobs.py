"""`ray job submit` on a real cluster with a token: every step and the pipeline as jobs, and their messages."""

import importlib
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from raystp.artifacts import resolve
from raystp.models.store import load_model
from raystp.steps import package_of
from raystp.steps.pipeline import step as pipeline
from raystp.steps.tile import step as tile
from raystp.storage import StoragePath
from tests.cluster.job_cluster import Cluster, refused, summary_of
from tests.conftest import ROOT

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]

STEPS = ("spots", "tile", "embed", "train", "index", "impute", "evaluate")


@pytest.fixture(scope="module")
def cohort(smoke_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke cohort's slide table without its damaged slide."""
    demo = resolve(str(smoke_store), "demo/smoke", "demo").path
    lines = (demo / "slides.csv").read_bytes().decode().splitlines()
    table = tmp_path_factory.mktemp("cohort") / "slides.csv"
    absolute = [line.replace(",slides/", f",{demo}/slides/").replace(",counts/", f",{demo}/counts/") for line in lines]
    table.write_text("\n".join(line for line in absolute if not line.startswith("damaged")) + "\n")
    return table


def _words(step: str, store: Path, cohort: Path) -> list[str]:
    words = ["--config", f"conf/{step}/smoke.yaml", "--set", f"run.store={store}"]
    return [*words, "--set", f"slides={cohort}"] if step in {"spots", "tile", "pipeline"} else words


@pytest.fixture(scope="module")
def submitted(cluster: Cluster, cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which every step ran as a job, one after the other."""
    store = tmp_path_factory.mktemp("submitted") / "store"
    for step in STEPS:
        done = cluster.submit(f"jobs/{step}.py", *_words(step, store, cohort))
        assert done.returncode == 0, done.stdout + done.stderr
        summary = summary_of(done.stdout)
        assert (summary["step"], summary["status"], summary["exit"]) == (step, "done", 0)
        assert str(summary["artifact"]).startswith(f"{store}/{step}/smoke-")
    return store


def _names(store: Path) -> set[str]:
    return {path.parent.relative_to(store).as_posix() for path in store.glob("*/*/manifest.json")}


def _check_equal(one: Path, other: Path) -> None:
    """Assert that two stores hold the same artifacts, with the same vectors, predictions and weights."""
    assert _names(one) == _names(other)
    for step, folder in (("embed", "embeddings"), ("impute", "predictions")):
        for artifact in sorted(one.glob(f"{step}/*")):
            others = _tables(other / artifact.relative_to(one) / folder)
            for left, right in zip(_tables(artifact / folder), others, strict=True):
                np.testing.assert_allclose(left, right, atol=1e-5)
    for artifact in sorted(one.glob("train/*")):
        weights = load_model(StoragePath.of(other / artifact.relative_to(one)))[1]
        for name, values in load_model(StoragePath.of(artifact))[1].items():
            np.testing.assert_allclose(weights[name], values, atol=1e-5, err_msg=name)


def _tables(folder: Path) -> list[np.ndarray]:
    """Return the vectors of all tables in a folder, file by file."""
    files = sorted(folder.rglob("*.parquet"))
    assert files
    columns = [pq.read_table(file).columns[-1].combine_chunks() for file in files]
    return [np.asarray(column.flatten()).reshape(len(column), -1) for column in columns]


def test_every_step_as_a_job_gives_the_same_artifacts_as_locally(submitted: Path, cohort: Path, tmp_path: Path) -> None:
    for step in STEPS:
        module = importlib.import_module(f"{package_of(step)}.step")
        config, *overrides = _words(step, tmp_path / "store", cohort)[1::2]
        module.run(module.CONFIG.load(ROOT / config, overrides))
    _check_equal(tmp_path / "store", submitted)


def test_a_job_without_the_token_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    done = cluster.ray(
        "job", "submit", "--address", cluster.address, "--", "python", "-c", "print('in')", HOME=str(tmp_path)
    )
    assert done.returncode != 0
    assert "in\n" not in done.stdout
    assert "token" in (done.stdout + done.stderr).lower()
    assert refused(cluster.address)


def test_tile_as_a_job_gives_the_same_tables_as_locally(
    cluster: Cluster, smoke_store: Path, cohort: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(smoke_store / "spots", store / "spots")
    words = _words("tile", store, cohort)
    done = cluster.submit("jobs/tile.py", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = summary_of(done.stdout)
    assert (summary["step"], summary["status"], summary["exit"]) == ("tile", "done", 0)
    (store / "tile").rename(tmp_path / "submitted")
    config, *overrides = words[1::2]
    local = tile.run(tile.CONFIG.load(ROOT / config, overrides))
    assert local.path.uri == summary["artifact"]
    for table in (store / "tile").rglob("*.parquet"):
        submitted = tmp_path / "submitted" / table.relative_to(store / "tile")
        assert pq.read_table(table).equals(pq.read_table(submitted))


def test_a_killed_pipeline_submitted_again_repeats_no_finished_step(
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
    summary = summary_of(again.stdout)
    assert (summary["status"], summary["exit"], summary["failures"]) == ("done", 0, 0)
    assert {path: path.stat().st_mtime_ns for path in early} == early
    config, *overrides = _words("pipeline", tmp_path / "local", cohort)[1::2]
    local = pipeline.run(pipeline.CONFIG.load(ROOT / config, overrides))
    assert local.manifest.fingerprint == summary["fingerprint"]
    _check_equal(tmp_path / "local", store)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["jobs/tile.py", "--set", "slides=slides.csv"],
            "  slides: 'slides.csv' is relative",
        ),
        (
            ["jobs/train.py", "--config", "conf/train/smoke.yaml", "--set", "run.store=/none/store"],
            "ArtifactError: no artifact 'spots/smoke' in /none/store",
        ),
    ],
    ids=["relative path", "missing input"],
)
def test_a_job_that_cannot_run_fails_with_a_message(cluster: Cluster, words: list[str], message: str) -> None:
    done = cluster.submit(*words)
    assert done.returncode != 0
    lines = done.stdout.splitlines()
    assert any(line.startswith(message) for line in lines), done.stdout
    assert "Traceback" not in done.stdout
    summary = summary_of(done.stdout)
    assert (summary["status"], summary["exit"]) == ("failed", 1)
