"""Training on Ray Train: one worker or two, from cached embeddings or from pixels, once and not twice."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from raystp import tables
from raystp.artifacts import Artifact, find
from raystp.models.store import load_model
from raystp.steps import embed, impute, index, train
from raystp.steps.train_config import TrainConfig

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def _config(store: Path, name: str, **changes: Any) -> TrainConfig:
    asked: dict[str, Any] = {
        "name": name,
        "spots": "spots/smoke",
        "embeddings": "embed/smoke",
        "panel": {"variable": 30},
        "split": {"test": ["patient-C"]},
        "bleep": {"dropout": 0.0, "dim": 16},
        "fit": {"epochs": 2, "contrast": 16, "step": 2, "lr": 1e-4},
        **changes,
    }
    return train.CONFIG.of({**asked, "run": {"store": str(store), "checkpoint_every": 1, **changes.get("run", {})}})


def _arrays(artifact: Artifact) -> dict[str, np.ndarray]:
    return load_model(artifact.place)[1]


def test_two_workers_train_the_model_of_one(smoke_store: Path) -> None:
    one = train.run(_config(smoke_store, "one-worker"))
    two = train.run(_config(smoke_store, "two-workers", run={"workers": 2, "gather": True}))
    assert one.manifest.fingerprint == two.manifest.fingerprint
    found = _arrays(two)
    for name, values in _arrays(one).items():
        np.testing.assert_allclose(found[name], values, atol=1e-4, err_msg=name)


def test_a_training_is_one_finished_run_in_mlflow_with_a_point_per_epoch(smoke_store: Path) -> None:
    artifact = train.run(_config(smoke_store, "logged", k=7))  # a fingerprint of its own, and so a run
    client = MlflowClient(f"sqlite:///{smoke_store / 'mlflow.db'}")
    experiments = [one.experiment_id for one in client.search_experiments()]
    named = f"logged-{artifact.manifest.fingerprint}"
    (run,) = [one for one in client.search_runs(experiments) if one.info.run_name == named]
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "train_loss")
    rows = artifact.table("epochs.parquet", tables.EPOCHS).to_pylist()
    assert [(point.step, point.value) for point in history] == [(row["epoch"], row["train_loss"]) for row in rows]


def test_a_tower_trained_from_pixels_is_an_encoder_and_predicts(smoke_store: Path) -> None:
    tower = {"tiles": "tile/smoke", "embeddings": None, "encoder": {"name": "tiny"}}
    model = train.run(_config(smoke_store, "pixels", **tower))
    weights = {name for name in _arrays(model) if name.startswith("tower.")}
    assert weights
    run = {"store": str(smoke_store)}
    encoder = {"trained": "train/pixels"}
    embedded = embed.run(embed.CONFIG.of({"name": "pixels", "tiles": "tile/smoke", "encoder": encoder, "run": run}))
    assert embedded.manifest.notes["encoder_identity"] == f"tower:{model.manifest.fingerprint}"
    sources = {"name": "pixels", "model": "train/pixels", "embeddings": "embed/pixels", "run": run}
    index.run(index.CONFIG.of({**sources, "spots": "spots/smoke"}))
    prediction = impute.run(impute.CONFIG.of({**sources, "index": "index/pixels", "k": 10}))
    assert "patient-C" in prediction.manifest.notes["slides"]
    assert find(str(smoke_store), "impute/pixels", "impute").manifest.failures == 0
