"""Folds side by side: their number is limited by the CPUs, and paths mean the same in every process."""

from pathlib import Path
from typing import Any

import pytest

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
