"""The MLflow runs of a sweep end like their trials, also those that were reported only at the end."""

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from raystp.cluster.tracking.outbox import Tracker
from raystp.cluster.training.sweep_log import SweepLog
from raystp.cluster.training.trials import Trial
from raystp.storage import StoragePath


@pytest.mark.slow
def test_the_run_of_a_crashed_trial_is_failed_and_that_of_a_lost_trial_is_deleted(tmp_path: Path) -> None:
    tracker = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}", "tests", StoragePath.of(tmp_path))
    run_ref = tracker.run_ref("sweep", "tune/sweep")
    with SweepLog(tracker, run_ref, {"train": {"model": "bleep"}}, metric="validation_pcc", total=2) as log:
        for number in range(2):
            log.on_start(number, {"fit.lr": 0.1})
        log.close([Trial(0, {"fit.lr": 0.1}, "failed", None, 0, reason="its process died")], None, [])
        log.on_start(1, {"fit.lr": 0.1})
    client = MlflowClient(str(tracker.uri))
    (experiment,) = client.search_experiments(filter_string="name = 'tests'")
    runs = {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}
    assert {name: one.info.status for name, one in runs.items()} == {"sweep": "FINISHED", "trial-000": "FAILED"}
    assert runs["trial-000"].data.tags["raystp.reason"] == "its process died"
