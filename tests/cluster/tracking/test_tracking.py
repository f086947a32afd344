"""MLflow on SQLite and behind a server that comes and goes: one run an artifact, nothing twice, and nothing waits."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient

from raystp.cluster.tracking import outbox as tracking
from raystp.cluster.tracking.delivery import RunDelivery, RunRef
from raystp.cluster.tracking.outbox import RunLogger, Tracker, send, tracked
from raystp.storage import StoragePath
from tests.cluster.conftest import Gate

PARAMETERS = {"model": "bleep", "fit": {"epochs": 2}, "nothing": None, "long": "x" * 900}
EPOCHS = 6


def _sqlite(folder: Path) -> Tracker:
    return Tracker(f"sqlite:///{folder / 'mlflow.db'}", "tests", StoragePath.of(folder))


def _book(tracker: Tracker, mark: str = "abc") -> RunRef:
    return tracker.book(f"run-{mark}", f"train/{mark}")


def _runs(uri: str, experiment: str) -> dict[str, MlflowRun]:
    client = MlflowClient(uri)
    (known,) = client.search_experiments(filter_string=f"name = '{experiment}'")
    return {one.info.run_name: one for one in client.search_runs([known.experiment_id])}


def _curve(uri: str, run: MlflowRun, metric: str = "train_loss") -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in MlflowClient(uri).get_metric_history(run.info.run_id, metric)]


def _fail_after_an_epoch(tracker: Tracker) -> None:
    with tracked(tracker, _book(tracker), PARAMETERS) as run:
        run.metrics({"train_loss": 2.0, "validation_loss": None}, step=0)
        msg = "killed"
        raise RuntimeError(msg)


@pytest.mark.slow
def test_a_training_that_is_resumed_goes_on_in_its_own_run(tmp_path: Path) -> None:
    tracker = _sqlite(tmp_path)
    uri = str(tracker.uri)
    with pytest.raises(RuntimeError, match="killed"):
        _fail_after_an_epoch(tracker)
    (failed,) = _runs(uri, "tests").values()
    assert failed.info.status == "FAILED"
    for _ in range(2):  # an epoch that is computed twice is one point of the curve
        with tracked(tracker, _book(tracker), PARAMETERS) as run:
            run.metrics({"train_loss": 1.0}, step=1)
    with tracked(tracker, _book(tracker, "other"), {}):
        pass
    runs = _runs(uri, "tests")
    assert set(runs) == {"run-abc", "run-other"}
    one = runs["run-abc"]
    assert one.info.status == "FINISHED"
    assert one.data.params["fit.epochs"] == "2"
    assert "nothing" not in one.data.params
    assert _curve(uri, one) == [(0, 2.0), (1, 1.0)]


@pytest.mark.slow
def test_an_epoch_that_is_told_twice_in_one_batch_is_one_point(tmp_path: Path) -> None:
    tracker = _sqlite(tmp_path)
    entry = {"kind": "metrics", "values": {"train_loss": 1.0}, "step": 0}
    delivery = RunDelivery(str(tracker.uri), _book(tracker))
    delivery.bring([{**entry, "time": 1}, {**entry, "time": 2}])
    delivery.bring([{**entry, "time": 3}])
    (run,) = _runs(str(tracker.uri), "tests").values()
    assert _curve(str(tracker.uri), run) == [(0, 1.0)]


@pytest.mark.slow
def test_files_of_a_run_on_sqlite_lie_in_the_store(tmp_path: Path) -> None:
    tracker = _sqlite(tmp_path)
    (tmp_path / "train" / "abc").mkdir(parents=True)
    (tmp_path / "train" / "abc" / "model.json").write_text("{}")
    with tracked(tracker, _book(tracker), {}) as run:
        run.file("train/abc/model.json", "model")
        run.file("train/abc/none.json")  # said and left: what comes after it arrives
        run.metrics({"alpha": 1.0}, step=0)
    assert run.left == ""
    (found,) = tmp_path.glob("mlflow-files/**/model.json")
    assert found.read_text() == "{}"
    assert _runs(str(tracker.uri), "tests")["run-abc"].data.metrics == {"alpha": 1.0}


def test_without_tracking_nothing_is_written(tmp_path: Path) -> None:
    tracker = Tracker(None, "tests", StoragePath.of(tmp_path))
    with tracked(tracker, _book(tracker), PARAMETERS) as run:
        run.metrics({"train_loss": 1.0}, step=0)
    assert run.left == ""
    assert list(tmp_path.iterdir()) == []


def _shut(gate: Gate) -> None:
    gate.change("shut")


def _error(gate: Gate) -> None:
    gate.change("error")


def _open(gate: Gate) -> None:
    gate.change("open")


def _stay(gate: Gate) -> None:
    del gate


def _slow(gate: Gate) -> None:
    gate.slow_s = 0.5


def _train(gate: Gate, tracker: Tracker, at: dict[int, Callable[[Gate], None]]) -> RunLogger:
    """Log some epochs; before some of them the server changes."""
    with tracked(tracker, _book(tracker), PARAMETERS) as run:
        for epoch in range(EPOCHS):
            at.get(epoch, _stay)(gate)
            run.metrics({"train_loss": float(epoch)}, step=epoch)
            time.sleep(0.2)
    return run


WHOLE = [(epoch, float(epoch)) for epoch in range(EPOCHS)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "at",
    [{0: _shut, 4: _open}, {2: _shut, 4: _open}, {1: _error, 3: _shut, 5: _open}, {0: _slow}],
    ids=["at the start", "in the middle", "with errors", "slow"],
)
def test_a_server_that_is_away_for_a_while_has_every_epoch_in_the_end(
    at: dict[int, Callable[[Gate], None]], gate: Gate, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    tracker = Tracker(gate.uri, request.node.name, StoragePath.of(tmp_path))
    run = _train(gate, tracker, at)
    assert run.left == ""
    (one,) = _runs(gate.uri, request.node.name).values()
    assert (one.info.status, one.data.params["model"]) == ("FINISHED", "bleep")
    assert _curve(gate.uri, one) == WHOLE
    assert not list(tmp_path.glob("tracking/*"))


@pytest.mark.slow
def test_what_a_server_did_not_take_by_the_end_lies_in_the_store_and_is_sent_later(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "PATIENCE_S", 1.0)
    (tmp_path / "train" / "abc").mkdir(parents=True)
    (tmp_path / "train" / "abc" / "model.json").write_text("{}")
    tracker = Tracker(gate.uri, "away", StoragePath.of(tmp_path))
    run = _train(gate, tracker, {3: _shut})
    assert f"`raystp send --set run.store={tmp_path} --set run.tracking=URI`" in run.left
    with tracked(tracker, _book(tracker), PARAMETERS) as run:  # a second attempt: what the first left goes with it
        run.file("train/abc/model.json", "model")
    (file,) = (tmp_path / "tracking").iterdir()
    assert str(gate.port) not in file.read_text()
    assert {entry["kind"] for entry in json.loads(file.read_text())["entries"]} >= {"metrics", "file", "end"}
    _open(gate)
    assert send(tracker, patience_s=60.0) == (1, "")
    (one,) = _runs(gate.uri, "away").values()
    assert one.info.status == "FINISHED"
    assert _curve(gate.uri, one) == WHOLE
    assert [found.path for found in MlflowClient(gate.uri).list_artifacts(one.info.run_id, "model")] == [
        "model/model.json"
    ]
    assert not list((tmp_path / "tracking").iterdir())
    assert send(tracker) == (0, "")


def test_a_server_that_never_answers_is_named_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracking, "PATIENCE_S", 0.5)
    monkeypatch.setattr(tracking, "LAST_S", 0.5)
    tracker = Tracker("http://somebody:canary@127.0.0.1:9", "away", StoragePath.of(tmp_path))
    with tracked(tracker, _book(tracker), PARAMETERS) as run:
        run.metrics({"train_loss": 1.0}, step=0)
    said = capsys.readouterr().err + run.left
    assert "MLflow did not take" in said
    assert "canary" not in said
    assert "canary" not in "".join(file.read_text() for file in (tmp_path / "tracking").iterdir())
