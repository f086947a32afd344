"""tune: a sweep is overrides of a training; killed and resumed it is one sweep, and its best trains again alike."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from raystp import tables
from raystp.artifacts import Artifact, resolve
from raystp.errors import ConfigError, ModelError
from raystp.steps.train import step as train
from raystp.steps.tune import step as tune
from raystp.steps.tune.config import TuneConfig

TRAIN: dict[str, Any] = {
    "spots": "spots/smoke",
    "embeddings": "embed/smoke",
    "panel": {"variable": 30},
    "split": {"test": ["patient-C"], "validation_block": 0.2},
    "fit": {"epochs": 4, "batch_size": 16, "accumulate_batches": 2},
    "run": {"checkpoint_every": 1},
}
SPACE: dict[str, Any] = {
    "bleep.temperature": ["loguniform", 0.1, 10],
    "bleep.dim": ["choice", 8, 16],
    "fit.lr": ["loguniform", 1e-4, 1e-2],
}


def _config(store: Path, name: str, **changes: Any) -> TuneConfig:
    asked = {"name": name, "train": TRAIN, "space": SPACE, "trials": 8, "asha": {"reduction": 2}, **changes}
    return tune.CONFIG.of({**asked, "run": {"store": str(store), **changes.get("run", {})}})


def _trials(artifact: Artifact) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = artifact.table("trials.parquet", tables.TRIALS).to_pylist()
    return rows


def _runs(store: Path, artifact: Artifact) -> tuple[Run, list[Run]]:
    """Return a sweep's own run in MLflow, and those under it."""
    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()], max_results=1000)
    (parent,) = [one for one in runs if one.data.tags.get("raystp.artifact") == artifact.manifest.folder]
    return parent, [one for one in runs if one.data.tags.get("mlflow.parentRunId") == parent.info.run_id]


@pytest.fixture(scope="module")
def killed(smoke_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, list[str]]:
    """A sweep that was killed after some trials and then resumed, and the trials that had ended before."""
    folder, address = tmp_path_factory.mktemp("killed"), ray.get_runtime_context().gcs_address
    config = _config(smoke_store, "killed", run={"address": address, "concurrent": 2})
    file = folder / "killed.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True)))
    command = [sys.executable, "-m", "raystp.cli", "tune", "--config", str(file)]
    with (folder / "log.txt").open("wb") as log:
        run = subprocess.Popen(command, stdout=log, stderr=log)
    while not (ended := sorted(path.stem for path in smoke_store.glob("tune/killed-*/trials/ended/*.json"))[2:]):
        assert run.poll() is None, (folder / "log.txt").read_text()
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    ended = sorted(path.stem for path in smoke_store.glob("tune/killed-*/trials/ended/*.json"))
    return tune.run(config), ended


@pytest.mark.faults
@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_that_was_killed_is_one_sweep_in_mlflow_with_a_run_a_trial(
    killed: tuple[Artifact, list[str]], smoke_store: Path
) -> None:
    artifact, ended = killed
    assert 2 < len(ended) < 8
    parent, runs = _runs(smoke_store, artifact)
    assert sorted(one.info.run_name for one in runs) == [f"trial-{number:03d}" for number in range(8)]
    assert {one.info.status for one in (parent, *runs)} == {"FINISHED"}
    client, rows = MlflowClient(f"sqlite:///{smoke_store / 'mlflow.db'}"), _trials(artifact)
    for run, row in zip(sorted(runs, key=lambda one: str(one.info.run_name)), rows, strict=True):
        history = [point.step for point in client.get_metric_history(run.info.run_id, "validation_pcc")]
        assert sorted(history) == list(range(row["epochs"]))  # every epoch of it, once
        assert {key: run.data.params[key] for key in SPACE} == {
            key: str(value) for key, value in json.loads(row["overrides"]).items()
        }
        assert run.data.tags["raystp.outcome"] == row["status"]
    assert {found.path for found in client.list_artifacts(parent.info.run_id)} == {
        *("best.yaml", "trials.parquet", "trials.png")
    }
    best = f"trial-{artifact.manifest.notes['best']:03d}"
    assert parent.data.tags["raystp.best_trial"] == best
    (marked,) = [one for one in runs if "raystp.best_trial" in one.data.tags]
    assert (marked.info.run_name, marked.data.metrics["score"]) == (best, artifact.manifest.notes["score"])
    assert f"Best: trial {artifact.manifest.notes['best']}, validation_pcc" in parent.data.tags["mlflow.note.content"]
    assert not (artifact.path / "trials").exists()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.faults
def test_the_best_trial_trained_afresh_has_its_score(killed: tuple[Artifact, list[str]], smoke_store: Path) -> None:
    artifact, _ = killed
    notes, rows = artifact.manifest.notes, _trials(artifact)
    finished = {row["trial"]: row["score"] for row in rows if row["status"] == "finished"}
    assert notes["score"] == finished[notes["best"]] == max(finished.values())
    config = train.CONFIG.load((artifact.path / "best.yaml").local_path)
    assert config.run.store == str(smoke_store)
    again = train.run(config)
    assert again.path != resolve(str(smoke_store), rows[notes["best"]]["model"], "train").path
    assert again.manifest.notes["score"]["validation_pcc"] == pytest.approx(notes["score"], abs=1e-6)


@pytest.mark.faults
@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_that_is_done_is_not_done_again(killed: tuple[Artifact, list[str]], smoke_store: Path) -> None:
    artifact, _ = killed
    assert tune.run(_config(smoke_store, "killed", run={"concurrent": 1})).manifest == artifact.manifest


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.faults
def test_a_sweep_of_a_baseline_finds_the_best_on_the_validation_side_and_a_failing_trial_is_a_row(
    smoke_store: Path,
) -> None:
    changes = {"train": {**TRAIN, "model": "knn"}, "space": {"panel.variable": ["choice", 20, 100_000]}, "asha": None}
    artifact = tune.run(
        _config(smoke_store, "knn", trials=4, search="random", seed=1, run={"tracking": "none"}, **changes)
    )
    rows = _trials(artifact)
    asked = [json.loads(row["overrides"])["panel.variable"] for row in rows]
    assert {row["status"] for row in rows} == {"finished", "failed"}
    for row, variable in zip(rows, asked, strict=True):
        failed = variable == 100_000
        assert (row["status"] == "failed", row["score"] is None) == (failed, failed)
        if failed:
            assert row["reason"].startswith("PanelError: panel.variable: 100000 variable genes were requested; ")
    assert artifact.manifest.notes["overrides"] == {"panel.variable": 20}


@pytest.mark.faults
@pytest.mark.ray
@pytest.mark.slow
def test_the_best_trial_is_trained_again_on_both_sides_and_never_on_the_test_side(smoke_store: Path) -> None:
    split = {"test": ["patient-C"], "validation": ["patient-B"]}
    changes: dict[str, Any] = {"train": {**TRAIN, "split": split}, "space": {"bleep.dim": ["choice", 8]}, "asha": None}
    artifact = tune.run(_config(smoke_store, "refit", trials=1, refit=True, run={"tracking": "none"}, **changes))
    model = resolve(str(smoke_store), artifact.manifest.notes["refit"], "train")
    (trial,) = (resolve(str(smoke_store), row["model"], "train") for row in _trials(artifact))
    tried, notes = trial.manifest.notes, model.manifest.notes
    assert (set(notes["train"]), notes["validation"]) == ({*tried["train"], *tried["validation"]}, [])
    assert notes["test"] == tried["test"]
    assert not {notes["patients"][section] for section in notes["train"]} & {"patient-C"}
    rows = model.table("epochs.parquet", tables.EPOCHS).to_pylist()
    assert len(rows) == tried["score"]["epoch"] + 1
    assert {row["validation_pcc"] for row in rows} == {None}
    assert str(model.path) in artifact.manifest.notes["summary"]
    fit = {"epochs": len(rows), "batch_size": 16, "accumulate_batches": 2}
    values = {**TRAIN, "split": {"test": ["patient-C"]}, "fit": fit, "bleep": {"dim": 8}}
    again = train.run(train.CONFIG.of({**values, "name": "by-hand", "run": {"store": str(smoke_store)}}))
    assert again.manifest.fingerprint == model.manifest.fingerprint


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_of_which_nothing_finished_says_what_the_first_failure_was(smoke_store: Path) -> None:
    space = {"panel.variable": ["choice", 100_000]}
    config = _config(smoke_store, "none", space=space, trials=1, run={"tracking": "none"})
    with pytest.raises(
        ModelError,
        match=r"none of 1 trials finished; the first of 1 failures: PanelError: panel.variable: 100000 variable",
    ):
        tune.run(config)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"fit.lrr": ["uniform", 0, 1]}, "fit.lrr: there is no such field; did you mean 'lr'?"),
        (
            {"fit.lr": ["lognormal", 0, 1]},
            "fit.lr: unknown distribution 'lognormal'; choose one of choice, uniform, loguniform",
        ),
        ({"fit.lr": ["loguniform", 0, 1]}, "fit.lr: loguniform needs bounds above 0, got 0"),
        ({"fit.lr": ["uniform", 1]}, "fit.lr: uniform takes 2 values, got [1]"),
        ({"fit.lr": ["uniform", 2, 1]}, "fit.lr: uniform needs a number and a larger one, got [2, 1]"),
        ({"fit.lr": ["uniform", -1, 1]}, "fit: lr must be finite and at least 0"),
        ({"fit.epochs": ["uniform", 1, 2.5]}, "fit.epochs: "),
        ({"model": ["choice", "ridge", "bridge"]}, "model: unknown method; the methods are bleep, "),
        ({"run.workers": ["choice", 1, 2]}, "run.workers: cannot be varied, since it does not change the score"),
        ({"fit.lr": []}, "fit.lr: unknown distribution None; choose one of choice"),
    ],
)
def test_a_space_that_does_not_fit_is_refused_before_any_work(space: dict[str, Any], said: str, tmp_path: Path) -> None:
    config = _config(tmp_path, "wrong", space={**space, "bleep.dim": ["choice", 8]})
    with pytest.raises(ConfigError) as caught:
        config.check_space()
    assert str(caught.value).startswith("the space does not fit the train config:\n  ")
    assert said in str(caught.value)


def test_a_sweep_needs_a_validation_side_and_a_metric_that_is_there(tmp_path: Path) -> None:
    bare = {**TRAIN, "split": {"test": ["patient-C"]}}
    with pytest.raises(ConfigError, match=r"set split.validation \(patients, sections or cases\)"):
        tune.run(_config(tmp_path, "bare", train=bare))
    with pytest.raises(ConfigError, match="has no validation_loss; set metric=validation_pcc"):
        tune.run(_config(tmp_path, "ridge", train={**TRAIN, "model": "ridge"}, metric="validation_loss"))


def test_a_train_config_is_named_by_file_or_stands_in_the_sweep_and_is_the_same_work(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text(yaml.safe_dump(TRAIN))
    named, inline = _config(tmp_path, "a", train=str(file)), _config(tmp_path, "a")
    assert named.fingerprint_values() == inline.fingerprint_values()
    assert named.training({"bleep.dim": 8}).model_dump()["bleep"]["dim"] == 8
    with pytest.raises(ConfigError, match=r"no config file .*none\.yaml"):
        _config(tmp_path, "a", train=str(tmp_path / "none.yaml")).training()


def test_a_relative_path_inside_the_train_config_is_refused_in_a_submitted_job() -> None:
    values = {**TRAIN, "panel": {"file": "genes.txt"}}
    config = tune.CONFIG.of({"train": values, "space": SPACE, "run": {"store": "/data/store"}})
    with pytest.raises(ConfigError, match=r"panel\.file: 'genes\.txt' is relative"):
        config.check_absolute()
