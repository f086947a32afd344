"""Damaged checkpoints and a kill right after a report: a training continues from the last checkpoint that is whole."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from raystp.artifacts import Artifact, resolve
from raystp.models.store import load_model
from raystp.steps.train import step as train
from raystp.steps.train.config import TrainConfig
from raystp.steps.train.work import TrainWork
from tests.faults.training.runs import BLEEP, EPOCHS, checkpoints, epochs_of, start_training, training

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]

NAME = "torn"
SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray's list of checkpoints."""


@pytest.fixture(scope="module")
def expected(smoke_store: Path) -> Artifact:
    """The training without faults."""
    return train.run(_alone(smoke_store, "whole", tracking="none"))


def _alone(store: Path, name: str, **run: Any) -> TrainConfig:
    return training(store, name, BLEEP, **run)


def _check_equal(found: Artifact, expected: Artifact) -> None:
    rows, truth = epochs_of(found), epochs_of(expected)
    assert [row["epoch"] for row in rows] == list(range(EPOCHS))
    for name in ("train_loss", "validation_loss", "validation_pcc"):
        assert [row[name] for row in rows] == pytest.approx([row[name] for row in truth], abs=1e-6)
    arrays = load_model(found.path)[1]
    for name, values in load_model(expected.path)[1].items():
        np.testing.assert_allclose(arrays[name], values, atol=1e-6, err_msg=name)


@dataclass(frozen=True)
class Interrupted:
    """A training whose driver was killed after some checkpoints: its folder in the store, and a copy of it."""

    config: TrainConfig
    folder: Path
    copy: Path

    def restore(self) -> tuple[Path, list[Path]]:
        """Put the training back to where it was killed; return its folder of checkpoints, and these."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.copy, self.folder)
        found = checkpoints(self.folder.parents[1], NAME)
        return found[0].parent, found


@pytest.fixture(scope="module")
def interrupted(smoke_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    folder = tmp_path_factory.mktemp("interrupted")
    config = _alone(smoke_store, NAME, tracking="none", address=ray.get_runtime_context().gcs_address)
    driver = start_training(config, folder)
    while len(checkpoints(smoke_store, NAME)) < 2:
        assert driver.poll() is None, (folder / "log.txt").read_text()
        time.sleep(0.01)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    artifact = checkpoints(smoke_store, NAME)[0].parents[2]
    time.sleep(3)  # until Ray has ended the driver's processes
    shutil.copytree(artifact, folder / "copy")
    return Interrupted(config, artifact, folder / "copy")


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 0xFF
    file.write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "half of the arrays": (lambda folder: _cut(folder / "state.safetensors"), "state.safetensors has sha256"),
    "another byte": (lambda folder: _flip(folder / "state.safetensors"), "state.safetensors has sha256"),
    "no description": (lambda folder: (folder / "state.json").unlink(), "has no state.json"),
    "half of the epochs": (lambda folder: _cut(folder / "epochs.json"), "epochs.json cannot be read"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_torn_checkpoint_is_found_by_its_hash_and_the_one_before_is_used(
    kind: str, interrupted: Interrupted, expected: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    _, (*_, before, last) = interrupted.restore()
    damage, message = DAMAGES[kind]
    damage(last)
    found = train.run(interrupted.config)
    printed = capsys.readouterr().err
    assert message in printed
    kept = len(json.loads((interrupted.copy / before.relative_to(interrupted.folder) / "epochs.json").read_bytes()))
    assert f"{kept} epochs were kept" in printed
    _check_equal(found, expected)


def test_without_a_whole_checkpoint_the_training_starts_again(
    interrupted: Interrupted, expected: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    _, found = interrupted.restore()
    for folder in found:
        _cut(folder / "state.safetensors")
    _check_equal(train.run(interrupted.config), expected)
    assert "0 epochs were kept" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "lost"])
def test_a_damaged_list_of_checkpoints_stops_no_training(
    content: str, interrupted: Interrupted, expected: Artifact
) -> None:
    folder, found = interrupted.restore()
    if content:  # the list names a checkpoint that is gone
        shutil.rmtree(found[0])
    else:
        (folder / SNAPSHOT).write_text(content)
    _check_equal(train.run(interrupted.config), expected)


class KilledAfterReport(TrainWork):
    """The work of a training, whose process is killed between a checkpoint's report and its entry in Ray's list."""

    def _report(self, state: Any, worker: Any, rows: list[dict[str, Any]]) -> None:
        super()._report(state, worker, rows)
        mark = self.target.local_path / "training" / "killed"
        if len(rows) == 3 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_kill_between_report_and_commit_repeats_or_loses_no_epoch(
    smoke_store: Path, expected: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "TrainWork", KilledAfterReport)
    _check_equal(train.run(_alone(smoke_store, "reported", tracking="none")), expected)
    assert not (resolve(str(smoke_store), "train/reported", "train").path / "training").exists()
