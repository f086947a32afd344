"""What a run has read is a dataset by fingerprint; folds are grouped by tags, below the run of their pipeline."""

import json
from pathlib import Path

import pytest
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient

from raystp.cluster.tracking import outbox as tracking
from raystp.cluster.tracking.delivery import RunDelivery
from raystp.cluster.tracking.lineage import dataset_input
from raystp.cluster.tracking.outbox import Outbox, Tracker, send, tracked
from raystp.cluster.tracking.tags import group_tags, without_fold
from raystp.storage import StoragePath
from tests.cluster.conftest import free_port

INPUTS = {"spots": "spots/her2st-0123456789ab", "planted": "f" * 64}


def _tracker(folder: Path) -> Tracker:
    return Tracker(f"sqlite:///{folder / 'mlflow.db'}", "tests", StoragePath.of(folder))


def _runs(tracker: Tracker) -> dict[str, MlflowRun]:
    client = MlflowClient(str(tracker.uri))
    (known,) = client.search_experiments(filter_string="name = 'tests'")
    return {one.info.run_name: one for one in client.search_runs([known.experiment_id])}


def _datasets(run: MlflowRun) -> dict[str, tuple[str, str, str]]:
    """Return role -> name, digest and use."""
    found = {}
    assert run.inputs is not None
    for one in run.inputs.dataset_inputs:
        tags = {tag.key: tag.value for tag in one.tags}
        found[tags["raystp.role"]] = (one.dataset.name, one.dataset.digest, tags["mlflow.data.context"])
    return found


def _log(tracker: Tracker) -> str:
    """Log a fold's training and the cross-validation above it; return what was not delivered."""
    message = ""
    with tracked(tracker, tracker.run_ref("cv", "pipeline/cv"), {}) as run:
        run.log_inputs(INPUTS, "training")
        run.adopt(["train/ridge-fold1", "train/not-in-mlflow"])
    message += run.undelivered
    with tracked(tracker, tracker.run_ref("fold", "train/ridge-fold1"), {}) as run:
        run.set_tags(group_tags("ridge-fold1", "patient"))
        run.describe("# Ridge")
    return message + run.undelivered


@pytest.mark.slow
def test_what_was_not_delivered_is_sent_later_with_its_datasets_and_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "END_TIMEOUT_S", 0.3)
    monkeypatch.setattr(tracking, "MIN_WAIT_S", 0.3)
    away = Tracker(f"http://127.0.0.1:{free_port()}", "tests", StoragePath.of(tmp_path))
    assert "are kept in" in _log(away)
    monkeypatch.undo()
    here = _tracker(tmp_path)
    assert send(here, 60.0) == (2, "")
    runs = _runs(here)
    expected = {"spots": ("spots/her2st", "0123456789ab", "training"), "planted": ("planted", "f" * 36, "training")}
    assert _datasets(runs["cv"]) == expected
    tags = runs["fold"].data.tags
    assert tags["mlflow.parentRunId"] == runs["cv"].info.run_id
    groups = (tags["raystp.protocol"], tags["raystp.series"], tags["raystp.fold"])
    assert groups == ("patient", "ridge", "1")
    assert tags["mlflow.note.content"] == "# Ridge"
    RunDelivery(str(here.uri), here.run_ref("cv", "pipeline/cv")).deliver(
        [{"kind": "inputs", "values": INPUTS, "context": "training"}]
    )
    assert _datasets(_runs(here)["cv"]) == expected  # once


def test_the_source_of_a_dataset_is_its_folder_without_credentials() -> None:
    store = StoragePath("s3://key:secret@bucket/store?endpoint_override=host")
    found = dataset_input(store, "spots", INPUTS["spots"], "training").dataset
    assert (found.source_type, json.loads(found.source)) == ("s3", {"uri": f"s3://bucket/store/{INPUTS['spots']}"})


def test_a_run_outside_a_fold_has_no_fold_and_models_lose_that_of_their_run_only() -> None:
    assert group_tags("her2st", "section") == {"raystp.protocol": "section", "raystp.series": "her2st"}
    assert group_tags("a-fold2-fold10", "patient")["raystp.fold"] == "10"
    first = {"raystp.protocol": "patient", "raystp.series": "idc", "raystp.fold": "0"}
    assert group_tags("idc-fold0", "patient") == first  # hest-bench counts its folds from 0
    assert without_fold("ridge-fold0", "idc-fold0") == "ridge"
    assert without_fold("ridge-fold3", "her2st-fold3") == "ridge"
    assert without_fold("ridge-fold3", "her2st") == "ridge-fold3"
    assert without_fold("ridge", "her2st-fold3") == "ridge"


def test_a_database_and_a_server_that_is_away_have_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = _tracker(tmp_path)
    assert Outbox(database).page(database.run_ref("run", "evaluate/x"), 60.0) is None
    monkeypatch.setattr(tracking, "END_TIMEOUT_S", 0.1)
    monkeypatch.setattr(tracking, "MIN_WAIT_S", 0.1)
    away = Tracker(f"http://127.0.0.1:{free_port()}", "tests", StoragePath.of(tmp_path))
    with tracked(away, away.run_ref("run", "evaluate/x"), {}) as run:
        assert run.page(60.0) is None  # at once: it does not wait for a server that does not respond
