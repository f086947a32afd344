"""Folds side by side: their number is limited by the CPUs, and paths mean the same in every process."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from raystp.errors import RaystpError
from raystp.steps.pipeline import step as pipeline
from raystp.steps.pipeline.fold_runs import folds_at_once, from_folder
from raystp.steps.train.config import TrainConfig


def _at_once(cpus: int, wanted: int | None, **run: Any) -> int:
    values = {"slides": "demo/x", "train": {"model": "ridge"}, "folds": 9, "run": {"folds_at_once": wanted}}
    train = TrainConfig.of({"spots": "spots/a", "embeddings": "embed/a", "split": {"test": ["A"]}, "run": run})
    return folds_at_once(pipeline.CONFIG.of(values), [train], cpus)


def test_a_fold_for_each_four_cpus_runs_unless_a_number_is_given() -> None:
    assert [_at_once(cpus, None) for cpus in (1, 4, 7, 8, 64)] == [1, 1, 1, 2, 16]
    assert [_at_once(4, wanted) for wanted in (1, 2)] == [1, 2]


def test_folds_whose_processes_wait_for_each_other_are_not_started_without_cpus(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert _at_once(16, 3, workers=2, cpus_per_worker=4) == 1  # 8 CPUs a training and one for its tasks
    assert "run.folds_at_once: 3 folds need 27 logical CPUs, and the cluster has 16: 1 run at a time" in caplog.text
    assert _at_once(18, 3, workers=2, cpus_per_worker=4) == 2
    assert _at_once(2, None, workers=2, cpus_per_worker=4) == 1  # Ray itself refuses or waits


def test_relative_paths_are_below_the_folder_of_the_driver() -> None:
    run = {"store": "store", "tracking": "sqlite:///mlflow.db"}
    embeddings = ["embed/a", "store/embed/b", "/data/embed/c"]
    values = {"spots": "spots/a", "embeddings": embeddings, "split": {"test": ["A"]}, "run": run}
    config = TrainConfig.of({**values, "panel": {"name": "own", "file": "genes.txt"}})
    found: Any = from_folder(config, "/home/me")
    assert list(found.embeddings) == ["embed/a", "/home/me/store/embed/b", "/data/embed/c"]
    assert found.panel.file == "/home/me/genes.txt"
    assert (found.run.store, found.run.tracking) == ("/home/me/store", "sqlite:////home/me/mlflow.db")
    assert from_folder(config, str(Path.cwd())) is config


@pytest.mark.ray
@pytest.mark.faults
def test_two_folds_at_once_give_the_table_of_one_and_a_fold_that_fails_stops_no_other(
    smoke_store: Path, tmp_path: Path
) -> None:
    stores = [shutil.copytree(smoke_store, tmp_path / name) for name in ("one", "two")]
    fit = {"epochs": 2, "batch_size": 16, "accumulate_batches": 1}
    train = [{"model": "ridge"}, {"model": "bleep", "fit": fit}]  # in the fold's process, and on Ray Train
    values = {
        "name": "cv",
        "slides": "demo/smoke",
        "train": train,
        "shared": {"panel": {"variable": 30}},
        "folds": "patient",
        "evaluate": {"permutations": 1},
    }
    tables, folders = [], []
    for at_once, store in enumerate(stores, 1):
        run = {"store": str(store), "tracking": "none", "folds_at_once": at_once}
        done = pipeline.run(pipeline.CONFIG.of({**values, "run": run}))
        tables.append((done.path.local_path / "folds.csv").read_bytes())
        folders.append((done.manifest.fingerprint, done.manifest.inputs))
    assert tables[0] == tables[1]
    assert folders[0] == folders[1]

    splits = tmp_path / "splits"
    splits.mkdir()
    for number, patient in enumerate(["patient-A", "patient-B", "patient-C"]):
        panel = {"name": "p", "file": str(tmp_path / "absent.txt")} if number == 1 else {"variable": 30}
        (splits / f"fold{number}.yaml").write_text(yaml.safe_dump({"split": {"test": [patient]}, "panel": panel}))
    run = {"store": str(stores[0]), "tracking": "none", "folds_at_once": 2}
    by_files = {
        **values,
        "name": "files",
        "train": train[:1],
        "shared": {},
        "folds": {"files": str(splits)},
        "run": run,
    }
    with pytest.raises(RaystpError, match=r"^1 of 3 folds failed; fold 1, which tests 'patient-B': .*absent\.txt"):
        pipeline.run(pipeline.CONFIG.of(by_files))
    finished = {artifact.parent.name for artifact in stores[0].glob("evaluate/files-fold*/manifest.json")}
    assert {name.rpartition("-")[0] for name in finished} == {"files-fold0", "files-fold2"}
    (splits / "fold1.yaml").write_text(yaml.safe_dump({"split": {"test": ["patient-B"]}, "panel": {"variable": 30}}))
    table = pd.read_csv(pipeline.run(pipeline.CONFIG.of(by_files)).path.local_path / "folds.csv")
    assert list(table.columns[3:]) == ["fold0", "fold1", "fold2", "mean", "sd", "low", "high"]
    assert {artifact.parent.name for artifact in stores[0].glob("evaluate/files-fold*/manifest.json")} > finished
