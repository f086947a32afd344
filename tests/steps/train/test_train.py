"""Training on Ray Train: one worker or two, from cached embeddings or from pixels, once and not twice."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from raystp import tables
from raystp.artifacts import Artifact, resolve
from raystp.errors import ModelError
from raystp.models.store import load_model
from raystp.steps.embed import step as embed
from raystp.steps.impute import step as impute
from raystp.steps.index import step as index
from raystp.steps.train import step as train
from raystp.steps.train.config import TrainConfig

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]


def _config(store: Path, name: str, **changes: Any) -> TrainConfig:
    asked: dict[str, Any] = {
        "name": name,
        "spots": "spots/smoke",
        "embeddings": "embed/smoke",
        "panel": {"variable": 30},
        "split": {"test": ["patient-C"]},
        "bleep": {"dropout": 0.0, "dim": 16},
        "fit": {"epochs": 2, "batch_size": 16, "accumulate_batches": 2, "lr": 1e-4},
        **changes,
    }
    return train.CONFIG.of({**asked, "run": {"store": str(store), "checkpoint_every": 1, **changes.get("run", {})}})


def _arrays(artifact: Artifact) -> dict[str, np.ndarray]:
    return load_model(artifact.path)[1]


def test_two_workers_train_the_model_of_one(smoke_store: Path) -> None:
    one = train.run(_config(smoke_store, "one-worker"))
    two = train.run(_config(smoke_store, "two-workers", run={"workers": 2, "gather": True}))
    assert one.manifest.fingerprint == two.manifest.fingerprint
    found = _arrays(two)
    for name, values in _arrays(one).items():
        np.testing.assert_allclose(found[name], values, atol=1e-4, err_msg=name)


@pytest.fixture(scope="module")
def pixels(smoke_store: Path) -> tuple[Artifact, int]:
    """Train a tower from pixels, kill its worker after the first checkpoint; return the model, and how many died."""
    tower = {"tiles": "tile/smoke", "embeddings": None, "encoder": {"name": "tiny"}}
    config = _config(
        smoke_store, "pixels", **tower, fit={"epochs": 6, "batch_size": 16, "accumulate_batches": 2, "lr": 1e-4}
    )
    killed: list[int] = []
    hunter = threading.Thread(target=_kill_one, args=(smoke_store, killed), daemon=True)
    hunter.start()
    model = train.run(config)
    hunter.join()
    return model, len(killed)


def _kill_one(store: Path, killed: list[int]) -> None:
    """Wait for the training's first checkpoint, then kill the one training process of this pytest's own Ray."""
    while not list((store / "train").glob("pixels-*/training/*/checkpoint_*")):
        time.sleep(0.01)
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            named = folder.name.isdigit() and (folder / "cmdline").read_bytes().startswith(b"ray::RayTrainWorker")
            if named and _parent(_parent(int(folder.name))) == os.getpid():
                os.kill(int(folder.name), signal.SIGKILL)
                killed.append(int(folder.name))


def _parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_training_whose_worker_was_killed_has_every_epoch_once(pixels: tuple[Artifact, int]) -> None:
    model, killed = pixels
    assert killed == 1
    assert model.table("epochs.parquet", tables.EPOCHS)["epoch"].to_pylist() == list(range(6))
    assert not (model.path / "training").exists()


def test_readers_apart_and_a_killed_worker_change_no_weight(
    smoke_store: Path, pixels: tuple[Artifact, int], tmp_path: Path
) -> None:
    model, _ = pixels
    sources = {
        "spots": resolve(str(smoke_store), "spots/smoke", "spots").path.uri,
        "tiles": resolve(str(smoke_store), "tile/smoke", "tile").path.uri,
    }
    run = {**model.manifest.config, **sources, "run": {"store": str(tmp_path), "readers": 1, "tracking": "none"}}
    again = train.run(train.CONFIG.of(run))
    assert again.manifest.fingerprint == model.manifest.fingerprint
    for name, values in _arrays(model).items():
        np.testing.assert_allclose(_arrays(again)[name], values, atol=1e-5, err_msg=name)


def test_a_training_is_one_finished_run_in_mlflow_with_a_point_per_epoch(
    smoke_store: Path, pixels: tuple[Artifact, int]
) -> None:
    model, _ = pixels
    client = MlflowClient(f"sqlite:///{smoke_store / 'mlflow.db'}")
    experiments = [one.experiment_id for one in client.search_experiments()]
    named = f"pixels-{model.manifest.fingerprint}"
    (run,) = [one for one in client.search_runs(experiments) if one.info.run_name == named]
    assert run.info.status == "FINISHED"
    assert (run.data.tags["raystp.protocol"], run.data.tags["raystp.series"]) == ("patient", "pixels")
    assert run.inputs is not None
    read = {f"{one.dataset.name}-{one.dataset.digest}" for one in run.inputs.dataset_inputs}
    assert read == set(model.manifest.inputs.values())
    history = client.get_metric_history(run.info.run_id, "train_loss")
    rows = model.table("epochs.parquet", tables.EPOCHS).to_pylist()
    assert {(point.step, point.value) for point in history} == {(row["epoch"], row["train_loss"]) for row in rows}


def test_a_tower_trained_from_pixels_is_an_encoder_and_predicts(
    smoke_store: Path, pixels: tuple[Artifact, int]
) -> None:
    model, _ = pixels
    assert any(name.startswith("tower.") for name in _arrays(model))
    run, encoder = {"store": str(smoke_store)}, {"trained": "train/pixels"}
    wanted = {"name": "pixels", "tiles": "tile/smoke", "encoder": encoder, "run": {**run, "encoders": 1}}
    embedded = embed.run(embed.CONFIG.of(wanted))
    assert embedded.manifest.notes["encoder_identity"] == f"tower:{model.manifest.fingerprint}"
    sources = {"name": "pixels", "model": "train/pixels", "embeddings": "embed/pixels", "run": run}
    index.run(index.CONFIG.of({**sources, "spots": "spots/smoke"}))
    prediction = impute.run(impute.CONFIG.of({**sources, "index": "index/pixels", "k": 10}))
    assert "patient-C" in prediction.manifest.notes["slides"]
    assert resolve(str(smoke_store), "impute/pixels", "impute").manifest.failures == 0


def test_a_model_that_predicts_at_once_reads_the_embeddings_of_its_own_tower_and_no_others(smoke_store: Path) -> None:
    values = {"tiles": "tile/smoke", "embeddings": None, "encoder": {"name": "tiny"}, "model": "attention"}
    fit = {"epochs": 2, "batch_size": 2, "encoder_lr": 1e-5}
    split = {"test": ["patient-C"], "validation_block": 0.2}
    augment = {"stain": "hed", "stain_strength": 0.1}
    changes = {"bags": {"parts": 8}, "split": split, "augment": augment, "fit": fit}
    model = train.run(_config(smoke_store, "direct", **values, **changes))
    assert all(
        np.isfinite(score) for score in model.table("epochs.parquet", tables.EPOCHS)["validation_pcc"].to_pylist()
    )
    run = {"store": str(smoke_store)}
    sources: dict[str, Any] = {"name": "direct", "model": "train/direct", "run": run}
    with pytest.raises(
        ModelError, match=r"is of another encoder \(seed:0\), and .* run `raystp embed` with encoder.tr"
    ):
        impute.run(impute.CONFIG.of({**sources, "embeddings": "embed/smoke"}))
    wanted = {"name": "direct", "tiles": "tile/smoke", "encoder": {"trained": "train/direct"}}
    embed.run(embed.CONFIG.of({**wanted, "run": {**run, "encoders": 1}}))
    prediction = impute.run(impute.CONFIG.of({**sources, "embeddings": "embed/direct"}))
    assert prediction.manifest.failures == 0
