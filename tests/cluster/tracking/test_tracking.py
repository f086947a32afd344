"""MLflow on SQLite and on a server with outages: one run per artifact, no duplicates, and the work never waits."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient

from raystp.cluster.tracking import outbox as tracking
from raystp.cluster.tracking.delivery import RunDelivery
from raystp.cluster.tracking.outbox import Tracker, send, tracked
from raystp.cluster.tracking.run_logger import RunLogger
from raystp.cluster.tracking.runs import RunRef
from raystp.storage import StoragePath
from tests.cluster.conftest import FaultyProxy

PARAMETERS = {"model": "bleep", "fit": {"epochs": 2}, "nothing": None, "long": "x" * 900}
EPOCHS = 6


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait as long as it takes at the end of a run: no test of this machine's speed."""
    monkeypatch.setattr(tracking, "END_TIMEOUT_S", 120.0)


def _sqlite(folder: Path) -> Tracker:
    return Tracker(f"sqlite:///{folder / 'mlflow.db'}", "tests", StoragePath.of(folder))


def _run_ref(tracker: Tracker, name: str = "abc") -> RunRef:
    return tracker.run_ref(f"run-{name}", f"train/{name}")


def _runs(uri: str, experiment: str) -> dict[str, MlflowRun]:
    client = MlflowClient(uri)
    (known,) = client.search_experiments(filter_string=f"name = '{experiment}'")
    return {one.info.run_name: one for one in client.search_runs([known.experiment_id])}


def _curve(uri: str, run: MlflowRun, metric: str = "train_loss") -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in MlflowClient(uri).get_metric_history(run.info.run_id, metric)]


def _fail_after_an_epoch(tracker: Tracker) -> None:
    with tracked(tracker, _run_ref(tracker), PARAMETERS) as run:
        run.log_metrics({"train_loss": 2.0, "validation_loss": None}, step=0)
        msg = "killed"
        raise RuntimeError(msg)


@pytest.mark.slow
@pytest.mark.usefixtures("unhurried")
def test_a_resumed_training_continues_its_run(tmp_path: Path) -> None:
    tracker = _sqlite(tmp_path)
    uri = str(tracker.uri)
    with pytest.raises(RuntimeError, match="killed"):
        _fail_after_an_epoch(tracker)
    (failed,) = _runs(uri, "tests").values()
    assert failed.info.status == "FAILED"
    for _ in range(2):  # an epoch that is computed twice is one point
        with tracked(tracker, _run_ref(tracker), PARAMETERS) as run:
            run.log_metrics({"train_loss": 1.0}, step=1)
    with tracked(tracker, _run_ref(tracker, "other"), {}):
        pass
    runs = _runs(uri, "tests")
    assert set(runs) == {"run-abc", "run-other"}
    one = runs["run-abc"]
    assert one.info.status == "FINISHED"
    assert one.data.params["fit.epochs"] == "2"
    assert "nothing" not in one.data.params
    assert _curve(uri, one) == [(0, 2.0), (1, 1.0)]


@pytest.mark.slow
def test_an_epoch_delivered_twice_in_one_batch_is_one_point(tmp_path: Path) -> None:
    tracker = _sqlite(tmp_path)
    entry = {"kind": "metrics", "values": {"train_loss": 1.0}, "step": 0}
    delivery = RunDelivery(str(tracker.uri), _run_ref(tracker))
    delivery.deliver([{**entry, "time": 1}, {**entry, "time": 2}])
    delivery.deliver([{**entry, "time": 3}])
    (run,) = _runs(str(tracker.uri), "tests").values()
    assert _curve(str(tracker.uri), run) == [(0, 1.0)]


@pytest.mark.slow
def test_files_of_a_run_on_sqlite_are_in_the_store(tmp_path: Path) -> None:
    tracker = _sqlite(tmp_path)
    (tmp_path / "train" / "abc").mkdir(parents=True)
    (tmp_path / "train" / "abc" / "model.json").write_text("{}")
    with tracked(tracker, _run_ref(tracker), {}) as run:
        run.log_file("train/abc/model.json", "model")
        run.log_file("train/abc/none.json")  # skipped with a warning; later entries are delivered
        run.log_metrics({"alpha": 1.0}, step=0)
    assert run.undelivered == ""
    (found,) = tmp_path.glob("mlflow-files/**/model.json")
    assert found.read_text() == "{}"
    assert _runs(str(tracker.uri), "tests")["run-abc"].data.metrics == {"alpha": 1.0}


def test_without_tracking_nothing_is_written(tmp_path: Path) -> None:
    tracker = Tracker(None, "tests", StoragePath.of(tmp_path))
    with tracked(tracker, _run_ref(tracker), PARAMETERS) as run:
        run.log_metrics({"train_loss": 1.0}, step=0)
    assert run.undelivered == ""
    assert list(tmp_path.iterdir()) == []


def _close(proxy: FaultyProxy) -> None:
    proxy.change("closed")


def _error(proxy: FaultyProxy) -> None:
    proxy.change("error")


def _open(proxy: FaultyProxy) -> None:
    proxy.change("open")


def _stay(proxy: FaultyProxy) -> None:
    del proxy


def _slow(proxy: FaultyProxy) -> None:
    proxy.slow_s = 0.5


def _train(proxy: FaultyProxy, tracker: Tracker, at: dict[int, Callable[[FaultyProxy], None]]) -> RunLogger:
    """Log some epochs; before some of them change the server's state."""
    with tracked(tracker, _run_ref(tracker), PARAMETERS) as run:
        for epoch in range(EPOCHS):
            at.get(epoch, _stay)(proxy)
            run.log_metrics({"train_loss": float(epoch)}, step=epoch)
            time.sleep(0.2)
    return run


ALL_POINTS = [(epoch, float(epoch)) for epoch in range(EPOCHS)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "at",
    [{0: _close, 4: _open}, {2: _close, 4: _open}, {1: _error, 3: _close, 5: _open}, {0: _slow}],
    ids=["at the start", "in the middle", "with errors", "slow"],
)
@pytest.mark.usefixtures("unhurried")
def test_every_epoch_is_delivered_after_an_outage(
    at: dict[int, Callable[[FaultyProxy], None]], proxy: FaultyProxy, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    tracker = Tracker(proxy.uri, request.node.name, StoragePath.of(tmp_path))
    run = _train(proxy, tracker, at)
    assert run.undelivered == ""
    (one,) = _runs(proxy.uri, request.node.name).values()
    assert (one.info.status, one.data.params["model"]) == ("FINISHED", "bleep")
    assert _curve(proxy.uri, one) == ALL_POINTS
    assert not list(tmp_path.glob("tracking/*"))


@pytest.mark.slow
def test_undelivered_entries_are_kept_in_the_store_and_sent_later(
    proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "END_TIMEOUT_S", 1.0)
    (tmp_path / "train" / "abc").mkdir(parents=True)
    (tmp_path / "train" / "abc" / "model.json").write_text("{}")
    tracker = Tracker(proxy.uri, "away", StoragePath.of(tmp_path))
    run = _train(proxy, tracker, {3: _close})
    assert f"`raystp send --set run.store={tmp_path} --set run.tracking=URI`" in run.undelivered
    with tracked(tracker, _run_ref(tracker), PARAMETERS) as run:  # a second attempt: entries of the first are kept too
        run.log_file("train/abc/model.json", "model")
    (file,) = (tmp_path / "tracking").iterdir()
    assert str(proxy.port) not in file.read_text()
    assert {entry["kind"] for entry in json.loads(file.read_text())["entries"]} >= {"metrics", "file", "end"}
    _open(proxy)
    assert send(tracker, timeout_s=60.0) == (1, "")
    (one,) = _runs(proxy.uri, "away").values()
    assert one.info.status == "FINISHED"
    assert _curve(proxy.uri, one) == ALL_POINTS
    assert [found.path for found in MlflowClient(proxy.uri).list_artifacts(one.info.run_id, "model")] == [
        "model/model.json"
    ]
    assert not list((tmp_path / "tracking").iterdir())
    assert send(tracker) == (0, "")


def test_the_message_about_an_unreachable_server_contains_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracking, "END_TIMEOUT_S", 0.5)
    monkeypatch.setattr(tracking, "MIN_WAIT_S", 0.5)
    tracker = Tracker("http://somebody:canary@127.0.0.1:9", "away", StoragePath.of(tmp_path))
    with tracked(tracker, _run_ref(tracker), PARAMETERS) as run:
        run.log_metrics({"train_loss": 1.0}, step=0)
    messages = capsys.readouterr().err + run.undelivered
    assert "entries were not delivered to MLflow" in messages
    assert "canary" not in messages
    assert "canary" not in "".join(file.read_text() for file in (tmp_path / "tracking").iterdir())


@pytest.mark.slow
def test_the_page_of_a_run_is_that_of_its_server(mlflow_port: int, tmp_path: Path) -> None:
    tracker = Tracker(f"http://user:canary@127.0.0.1:{mlflow_port}", "pages", StoragePath.of(tmp_path))
    with tracked(tracker, tracker.run_ref("run", "evaluate/x"), {}) as run:
        page = run.page(60.0)
    client = MlflowClient(f"http://127.0.0.1:{mlflow_port}")
    known = client.get_experiment_by_name("pages")
    assert known is not None
    (found,) = client.search_runs([known.experiment_id])
    assert page == f"http://127.0.0.1:{mlflow_port}/#/experiments/{known.experiment_id}/runs/{found.info.run_id}"
