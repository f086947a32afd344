"""Progress of a training: written by rank 0, shown by the driver, and no error of the work."""

import re
import time
from pathlib import Path

import pytest

from raystp.cluster import progress as console
from raystp.cluster.progress import Progress
from raystp.cluster.training import epoch_progress
from raystp.cluster.training.epoch_progress import EpochWriter, describe, epochs_shown, show
from raystp.storage import StoragePath


def _row(epoch: int, **more: float | None) -> dict[str, float | None]:
    return {"epoch": epoch, "train_loss": 1.5, "validation_loss": None, "validation_pcc": None, **more}


def _wait(progress: Progress, done: int) -> None:
    for _ in range(400):
        if progress.done >= done:
            return
        time.sleep(0.01)
    raise AssertionError(progress.done)


def test_the_driver_shows_the_epochs_that_a_worker_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(epoch_progress, "WRITE_INTERVAL_S", 0.0)
    monkeypatch.setattr(epoch_progress, "READ_INTERVAL_S", 0.01)
    monkeypatch.setattr(console, "LINE_INTERVAL_S", 0.0)
    file = StoragePath.of(tmp_path / "a?b %41" / "progress.json")
    file.write_bytes(b"of an earlier run")
    with epochs_shown(file, 10) as progress:
        writer = EpochWriter(file, resumed=4)
        writer.write([_row(0)] * 5)
        _wait(progress, 5)
        writer.write([*[_row(0)] * 6, _row(6, validation_loss=0.25, validation_pcc=0.125)])
        _wait(progress, 7)
        progress.total = 8  # stopped early
        show(progress, 8, _row(7))
    first, second, *_, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"train: 5 of 10 epochs in .* epochs/s, about \d+ s to go; loss 1.5", first)
    assert second.endswith("; loss 1.5, validation loss 0.25, validation PCC 0.125")
    assert re.fullmatch(r"train: 8 of 8 epochs in \d+\.\d s, \d+\.\d epochs/s; loss 1.5", last)


def test_epochs_of_an_earlier_process_do_not_count_for_the_rate(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("train", 100, "epoch") as progress:
        show(progress, 50, _row(49), resumed=50)
    assert "50 of 100 epochs" in (line := capsys.readouterr().err)
    assert "0.0 epochs/s; loss" in line


def test_a_worker_writes_seldom_and_a_store_that_fails_stops_nothing(tmp_path: Path) -> None:
    file = StoragePath.of(tmp_path / "progress.json")
    writer = EpochWriter(file, resumed=0)
    writer.write([_row(0)])
    first = file.read_bytes()
    writer.write([_row(0), _row(1)])
    assert file.read_bytes() == first
    (tmp_path / "file").write_text("")
    EpochWriter(StoragePath.of(tmp_path / "file" / "progress.json"), resumed=0).write([_row(0)])
    EpochWriter(None, resumed=0).write([_row(0)])


def test_an_epoch_is_described_by_what_was_measured() -> None:
    assert describe(_row(1, validation_pcc=0.51234)) == "loss 1.5, validation PCC 0.5123"


def test_an_epoch_that_is_read_late_changes_nothing() -> None:
    with Progress("train", 10, "epoch") as progress:
        show(progress, 8, _row(7))
        show(progress, 7, _row(6, validation_loss=0.25))
        assert (progress.done, progress.note) == (8, "loss 1.5")
