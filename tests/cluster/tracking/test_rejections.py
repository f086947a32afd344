"""Entries that MLflow rejects: restored, delivered in another form, or kept until `send` delivers them."""

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from mlflow.entities import Run as MlflowRun
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from raystp.cluster.tracking import outbox as tracking
from raystp.cluster.tracking.backlog import backlog_file
from raystp.cluster.tracking.delivery import LONG_VALUES
from raystp.cluster.tracking.outbox import Tracker, send, tracked
from raystp.cluster.tracking.run_logger import RunLogger
from raystp.cluster.tracking.runs import sqlite_uri
from raystp.errors import StorageError
from raystp.storage import StoragePath
from tests.cluster.conftest import FaultyProxy

pytestmark = pytest.mark.slow

MODEL = {"model": "bleep"}
FOLDERS = ["100%41 b", "a?b=c&d", "a#b;[c]", "ä ö'\""]
"""Names of folders that mean something else in a URI."""


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give SQLite its time on a busy machine; a test of what is not delivered shortens it."""
    monkeypatch.setattr(tracking, "END_TIMEOUT_S", 120.0)


def _tracker(folder: Path) -> Tracker:
    return Tracker(sqlite_uri(folder / "mlflow.db"), "tests", StoragePath.of(folder))


def _log(
    tracker: Tracker,
    name: str = "abc",
    parameters: Mapping[str, object] = MODEL,
    between: Callable[[], object] = lambda: None,
) -> RunLogger:
    with tracked(tracker, tracker.run_ref(f"run-{name}", f"train/{name}"), {**MODEL, **parameters}) as run:
        run.log_metrics({"train_loss": 1.0}, step=0)
        between()
        run.log_metrics({"train_loss": 0.5, "validation_pcc": 0.1}, step=1)
    return run


def _run(tracker: Tracker, name: str = "abc") -> MlflowRun:
    client = MlflowClient(str(tracker.uri))
    known = client.get_experiment_by_name("tests")
    assert known is not None
    (found,) = (one for one in client.search_runs([known.experiment_id]) if one.info.run_name == f"run-{name}")
    return found


def _check_complete(tracker: Tracker, name: str = "abc") -> None:
    run, client = _run(tracker, name), MlflowClient(str(tracker.uri))
    points = [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, "train_loss")]
    assert (points, run.data.params["model"], run.info.status) == ([(0, 1.0), (1, 0.5)], "bleep", "FINISHED")
    assert run.data.metrics["validation_pcc"] == 0.1
    assert not StoragePath.of(tracker.store.uri + "/tracking").names()


def _wait_and(change: Callable[[], object], tracker: Tracker) -> Callable[[], None]:
    """Return a function that changes MLflow once the first epoch is there."""

    def act() -> None:
        client = MlflowClient(str(tracker.uri))
        while not (known := client.get_experiment_by_name("tests")) or not any(
            run.data.metrics for run in client.search_runs([known.experiment_id])
        ):
            pass
        change()

    return act


def _delete_experiment(tracker: Tracker) -> None:
    client = MlflowClient(str(tracker.uri))
    known = client.get_experiment_by_name("tests")
    assert known is not None
    client.delete_experiment(known.experiment_id)


def _delete_run(tracker: Tracker) -> None:
    MlflowClient(str(tracker.uri)).delete_run(_run(tracker).info.run_id)


def test_a_deleted_experiment_is_restored_with_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = _tracker(tmp_path)
    assert _log(tracker, "one").undelivered == ""
    _delete_experiment(tracker)
    assert _log(tracker, "two").undelivered == ""
    for name in ("one", "two"):
        _check_complete(tracker, name)
    assert capsys.readouterr().err.count("the experiment 'tests' was deleted; restored") == 1


@pytest.mark.parametrize("delete", [_delete_experiment, _delete_run])
def test_what_is_deleted_during_a_training_is_restored(tmp_path: Path, delete: Callable[[Tracker], None]) -> None:
    tracker = _tracker(tmp_path)
    assert _log(tracker, between=_wait_and(lambda: delete(tracker), tracker)).undelivered == ""
    _check_complete(tracker)


def test_a_deleted_run_is_restored_by_the_same_command(tmp_path: Path) -> None:
    tracker = _tracker(tmp_path)
    _log(tracker)
    _delete_run(tracker)
    assert _log(tracker).undelivered == ""
    _check_complete(tracker)


def test_a_parameter_that_changed_is_a_tag_beside_the_first_value(tmp_path: Path) -> None:
    tracker = _tracker(tmp_path)
    _log(tracker, parameters={"epochs": 2})
    assert _log(tracker, parameters={"epochs": 3, "seed": 1}).undelivered == ""
    run = _run(tracker)
    assert (run.data.params["epochs"], run.data.tags["raystp.changed.epochs"]) == ("2", "3")
    assert run.data.params["seed"] == "1"
    _check_complete(tracker)


def test_a_long_value_is_cut_and_kept_whole_as_a_file(tmp_path: Path) -> None:
    tracker, name = _tracker(tmp_path), "genes of Müller: " + "x" * 300
    assert _log(tracker, parameters={name: "y" * 9000}).undelivered == ""
    run, client = _run(tracker), MlflowClient(str(tracker.uri))
    (key,) = set(run.data.params) - {"model"}
    assert (key[:17], len(key), run.data.params[key]) == ("genes of M_ller: ", 250, "y" * 500)
    (file,) = client.list_artifacts(run.info.run_id, LONG_VALUES)
    (found,) = tmp_path.glob(f"mlflow-files/**/{file.path.rpartition('/')[2]}")
    assert found.read_text() == "y" * 9000
    _check_complete(tracker)


@pytest.mark.parametrize("table", ["metrics", "params", "tags"])
def test_what_a_full_database_refuses_is_kept_and_sent_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    tracker = _tracker(tmp_path)
    _log(tracker, "first")
    monkeypatch.setattr(tracking, "END_TIMEOUT_S", 2.0)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute(f"CREATE TRIGGER q BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'quota'); END")
    run = _log(tracker)
    assert "entries were not delivered to MLflow" in run.undelivered
    assert "are kept in" in run.undelivered
    assert send(tracker, 2.0)[1] != ""  # still refused, and still kept
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("DROP TRIGGER q")
    assert send(tracker, 60.0) == (1, "")
    _check_complete(tracker)


@pytest.mark.faults
@pytest.mark.parametrize(
    "refusal",
    [
        "403 PERMISSION_DENIED",
        "400 INVALID_PARAMETER_VALUE",
        "404 RESOURCE_DOES_NOT_EXIST",
        "429 RESOURCE_LIMIT_EXCEEDED",
        "500 INTERNAL_ERROR",
        "413 OF_NO_VERSION",
    ],
)
def test_whatever_a_server_refuses_is_kept_and_sent_later(
    proxy: FaultyProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refusal: str,
) -> None:
    monkeypatch.setattr(tracking, "END_TIMEOUT_S", 1.0)
    tracker = Tracker(proxy.uri, "tests", StoragePath.of(tmp_path))
    name = refusal.partition(" ")[2]
    run = _log(tracker, name, between=lambda: proxy.change(refusal))
    assert "are kept in" in run.undelivered
    assert backlog_file(tracker.store, f"train/{name}").exists()
    proxy.change("open")
    assert send(tracker, 60.0) == (1, "")
    _check_complete(tracker, name)


@pytest.mark.faults
@pytest.mark.parametrize("name", FOLDERS)
def test_a_store_may_have_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    (folder / "train" / "abc").mkdir(parents=True)
    (folder / "train" / "abc" / "model.json").write_text("{}")
    tracker = _tracker(folder)
    with tracked(tracker, tracker.run_ref("run-abc", "train/abc"), {"model": "bleep"}) as run:
        run.log_file("train/abc/model.json", "model")
    assert run.undelivered == ""
    assert (folder / "mlflow.db").is_file()
    (file,) = folder.glob("mlflow-files/**/model.json")
    (found,) = MlflowClient(str(tracker.uri)).list_artifacts(_run(tracker).info.run_id, "model")
    assert (found.path, file.read_text()) == ("model/model.json", "{}")
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_an_experiment_may_have_any_name(tmp_path: Path) -> None:
    for name in ("../up", "a/b", "a%2Fb", "..", "it's"):
        tracker = Tracker(sqlite_uri(tmp_path / "s" / "mlflow.db"), name, StoragePath.of(tmp_path / "s"))
        (tmp_path / "s").mkdir(exist_ok=True)
        (tmp_path / "s" / "f.txt").write_text("")
        with tracked(tracker, tracker.run_ref("run", "train/x"), {}) as run:
            run.log_file("f.txt")
        assert run.undelivered == ""
        client = MlflowClient(str(tracker.uri))
        known = client.get_experiment_by_name(name)
        assert known is not None
        assert len(client.search_runs([known.experiment_id], run_view_type=ViewType.ACTIVE_ONLY)) == 1
    assert [one.name for one in tmp_path.iterdir()] == ["s"]
    assert len(list((tmp_path / "s" / "mlflow-files").glob("*/*/artifacts/f.txt"))) == 5


def test_a_damaged_file_of_kept_entries_stops_send_but_no_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = _tracker(tmp_path)
    backlog_file(tracker.store, "train/abc").write_bytes(b'{"book": {"exp')
    with pytest.raises(StorageError, match=r"train.abc.json is not a file of kept MLflow entries, or is damaged: move"):
        send(tracker, 1.0)
    assert _log(tracker).undelivered == ""
    assert "is damaged" in capsys.readouterr().err
    _check_complete(tracker)
