"""Kills during `train`, of a worker or of the driver: epochs and model equal those of a run without faults."""

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from raystp.artifacts import Artifact, resolve
from raystp.models.store import load_model
from raystp.steps.impute import step as impute
from raystp.steps.train import step as train
from raystp.steps.train.config import TrainConfig
from tests.faults.training.runs import BLEEP, EPOCHS, checkpoints, epochs_of, start_training, training

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]

MODELS: dict[str, dict[str, Any]] = {
    "driver": BLEEP,
    # Split over two workers, so without dropout, whose random masks depend on their number.
    "worker": {"model": "nh2st", "nh2st": {"dim": 16, "heads": 2, "dropout": 0.0}},
}
RUNS: dict[str, dict[str, Any]] = {"driver": {}, "worker": {"workers": 2, "gather": True}}


def _config(store: Path, victim: str, **run: Any) -> TrainConfig:
    return training(store, f"killed-{victim}", MODELS[victim], **run)


@dataclass(frozen=True)
class KilledTraining:
    """A training in which a process was killed, and the same training without faults, on one worker."""

    found: Artifact
    expected: Artifact
    resumed_at: int
    """Checkpoints that existed when the process was killed."""


@pytest.fixture(scope="module", params=list(MODELS))
def killed(
    request: pytest.FixtureRequest, smoke_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> KilledTraining:
    """Kill one process of a training after its first checkpoint; start it again if that was the driver."""
    victim, folder = request.param, tmp_path_factory.mktemp("killed")
    config = _config(smoke_store, victim, address=ray.get_runtime_context().gcs_address, **RUNS[victim])
    driver = start_training(config, folder)
    while not (found_before := checkpoints(smoke_store, f"killed-{victim}")):
        assert driver.poll() is None, (folder / "log.txt").read_text()
        time.sleep(0.01)
    if victim == "driver":
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        found = train.run(config)
    else:
        os.kill(_workers()[0], signal.SIGKILL)
        assert driver.wait() == 0, (folder / "log.txt").read_text()
        found = resolve(str(smoke_store), f"train/killed-{victim}", "train")
    sources = {key: resolve(str(smoke_store), f"{step}/smoke", step).path.uri for key, step in STEPS.items()}
    alone = _config(folder, victim, tracking="none").model_copy(update=sources)
    return KilledTraining(found, train.run(alone), len(found_before))


STEPS = {"spots": "spots", "embeddings": "embed"}


def _workers() -> list[int]:
    """Return the training processes of this test session's Ray."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_worker = (folder / "cmdline").read_bytes().startswith(b"ray::RayTrainWorker")
            if is_worker and _parent(_parent(int(folder.name))) == os.getpid():
                found.append(int(folder.name))
    return found


def _parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def _runs(store: Path, artifact: Artifact) -> list[Run]:
    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    experiments = [one.experiment_id for one in client.search_experiments()]
    named = f"{artifact.manifest.name}-{artifact.manifest.fingerprint}"
    return [one for one in client.search_runs(experiments) if one.info.run_name == named]


def test_a_training_resumes_after_a_kill_with_the_sameepochs_of(killed: KilledTraining) -> None:
    assert 0 < killed.resumed_at < EPOCHS
    assert killed.found.manifest.fingerprint == killed.expected.manifest.fingerprint
    found, expected = epochs_of(killed.found), epochs_of(killed.expected)
    assert [row["epoch"] for row in found] == list(range(EPOCHS))
    for name in ("train_loss", "validation_loss", "validation_pcc"):
        assert [row[name] for row in found] == pytest.approx([row[name] for row in expected], abs=1e-4)
    assert not (killed.found.path / "training").exists()


def test_mlflow_has_one_finished_run_with_every_epoch_once(killed: KilledTraining, smoke_store: Path) -> None:
    (run,) = _runs(smoke_store, killed.found)
    assert run.info.status == "FINISHED"
    client, rows = MlflowClient(f"sqlite:///{smoke_store / 'mlflow.db'}"), epochs_of(killed.found)
    for name in ("train_loss", "validation_loss"):
        points = client.get_metric_history(run.info.run_id, name)
        assert sorted((one.step, one.value) for one in points) == [(row["epoch"], row[name]) for row in rows]
    assert {one.path for one in client.list_artifacts(run.info.run_id, "model")} == {
        "model/model.json",
        "model/model.safetensors",
    }


def test_the_model_equals_that_of_a_run_without_faults_and_predicts(killed: KilledTraining, smoke_store: Path) -> None:
    (kind, found, meta), (_, expected, other) = (load_model(one.path) for one in (killed.found, killed.expected))
    assert meta["epoch"] == other["epoch"]
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-4, err_msg=name)
    if kind == "nh2st":  # needs no index
        name = killed.found.manifest.name
        config = {
            "name": name,
            "model": f"train/{name}",
            "embeddings": "embed/smoke",
            "run": {"store": str(smoke_store)},
        }
        assert impute.run(impute.CONFIG.of(config)).manifest.failures == 0
