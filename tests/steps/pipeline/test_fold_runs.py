"""Folds side by side: their number is limited by the CPUs, and paths mean the same in every process."""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from raystp.artifacts import Artifact
from raystp.errors import RaystpError
from raystp.steps.pipeline import step as pipeline
from raystp.steps.pipeline.folds.runs import folds_at_once, from_folder
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


VALUES: dict[str, Any] = {
    "name": "cv",
    "slides": "demo/smoke",
    # In the process of the fold, and on Ray Train.
    "train": [{"model": "ridge"}, {"model": "bleep", "fit": {"epochs": 2, "batch_size": 16, "accumulate_batches": 1}}],
    "shared": {"panel": {"variable": 30}},
    "folds": "patient",
    "evaluate": {"permutations": 0},
}


def _run(store: Path, at_once: int, **changes: Any) -> Artifact:
    run = {"store": str(store), "tracking": "none", "folds_at_once": at_once}
    return pipeline.run(pipeline.CONFIG.of({**VALUES, **changes, "run": run}))


@pytest.mark.ray
@pytest.mark.faults
def test_folds_in_turn_and_folds_side_by_side_that_were_killed_and_continued_have_one_table(
    smoke_store: Path, tmp_path: Path
) -> None:
    one, two = (shutil.copytree(smoke_store, tmp_path / name) for name in ("one", "two"))
    in_turn = _run(one, 1)
    file = tmp_path / "cv.yaml"
    file.write_text(yaml.safe_dump({**VALUES, "run": {"store": str(two), "tracking": "none", "folds_at_once": 2}}))
    command = [sys.executable, "-m", "raystp.cli", "pipeline", "--config", str(file)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        until = time.monotonic() + 300
        while time.monotonic() < until and not list(two.glob("impute/cv-ridge-fold*/manifest.json")):
            time.sleep(0.2)
        assert process.poll() is None
        process.kill()
    done = {path: path.stat().st_mtime_ns for path in two.glob("*/cv-*/manifest.json")}
    assert len(list(two.glob("evaluate/cv-*/manifest.json"))) < 3
    together = _run(two, 2)
    assert {path: path.stat().st_mtime_ns for path in done} == done  # what was finished is not repeated
    assert (together.manifest.fingerprint, together.manifest.inputs) == (
        in_turn.manifest.fingerprint,
        in_turn.manifest.inputs,
    )
    tables = [(found.path.local_path / "folds.csv").read_bytes() for found in (in_turn, together)]
    assert tables[0] == tables[1]


@pytest.mark.ray
@pytest.mark.faults
def test_a_fold_that_fails_is_named_and_stops_no_other(smoke_store: Path, tmp_path: Path) -> None:
    store = shutil.copytree(smoke_store, tmp_path / "store")
    own = {"panel": {"variable": 30}}
    for number, patient in enumerate(["patient-A", "patient-B", "patient-C"]):
        panel = {"panel": {"name": "p", "file": str(tmp_path / "absent.txt")}} if number == 1 else own
        (tmp_path / f"fold{number}.yaml").write_text(yaml.safe_dump({"split": {"test": [patient]}, **panel}))
    by_files = {"train": {"model": "ridge"}, "shared": {}, "folds": {"files": str(tmp_path)}}
    with pytest.raises(RaystpError, match=r"^1 of 3 folds failed; fold 1, which tests 'patient-B': .*absent\.txt"):
        _run(store, 2, **by_files)
    finished = {path.parent.name for path in store.glob("evaluate/cv-fold*/manifest.json")}
    assert {name.rpartition("-")[0] for name in finished} == {"cv-fold0", "cv-fold2"}
    (tmp_path / "fold1.yaml").write_text(yaml.safe_dump({"split": {"test": ["patient-B"]}, **own}))
    table = pd.read_csv(_run(store, 1, **by_files).path.local_path / "folds.csv")
    assert list(table.columns[3:]) == ["fold0", "fold1", "fold2", "mean", "sd", "low", "high"]
    assert {path.parent.name for path in store.glob("evaluate/cv-fold*/manifest.json")} > finished
