"""A sweep's runs in MLflow end as their trials did, also those of which the sweep heard only in the end."""

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from raystp.cluster.tracking.outbox import Tracker
from raystp.cluster.training.sweep_log import SweepLog
from raystp.cluster.training.trials import Trial
from raystp.storage import StoragePath


@pytest.mark.slow
def test_a_trial_whose_process_died_is_failed_and_one_that_the_sweep_lost_is_gone(tmp_path: Path) -> None:
    tracker = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}", "tests", StoragePath.of(tmp_path))
    book = tracker.book("sweep", "tune/sweep")
    with SweepLog(tracker, book, {"train": {"model": "bleep"}}, metric="validation_pcc", total=2) as log:
        for number in range(2):
            log.began(number, {"fit.lr": 0.1})
        log.close([Trial(0, {"fit.lr": 0.1}, "failed", None, 0, reason="its process died")], None, [])
        log.began(1, {"fit.lr": 0.1})
    client = MlflowClient(str(tracker.uri))
    (experiment,) = client.search_experiments(filter_string="name = 'tests'")
    runs = {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}
    assert {name: one.info.status for name, one in runs.items()} == {"sweep": "FINISHED", "trial-000": "FAILED"}
    assert runs["trial-000"].data.tags["raystp.reason"] == "its process died"
