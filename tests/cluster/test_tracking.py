"""MLflow on SQLite: one run per training, reopened, never doubled."""

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from raystp.cluster.tracking import Logbook, tracked


def _book(folder: Path, fingerprint: str = "abc") -> Logbook:
    parameters = {"model": "bleep", "fit": {"epochs": 2}, "nothing": None, "long": "x" * 900}
    return Logbook(f"sqlite:///{folder / 'mlflow.db'}", "tests", f"run-{fingerprint}", fingerprint, parameters)


def _fail_after_an_epoch(book: Logbook) -> None:
    with tracked(book) as run:
        run.metrics({"train_loss": 2.0, "validation_loss": None}, step=0)
        msg = "killed"
        raise RuntimeError(msg)


@pytest.mark.slow
def test_a_training_that_is_resumed_goes_on_in_its_own_run(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        _fail_after_an_epoch(_book(tmp_path))
    client = MlflowClient(_book(tmp_path).uri)
    (experiment,) = client.search_experiments(filter_string="name = 'tests'")
    (failed,) = client.search_runs([experiment.experiment_id])
    assert failed.info.status == "FAILED"
    for _ in range(2):  # an epoch that is computed twice is one point of the curve, or two alike
        with tracked(_book(tmp_path)) as run:
            run.metrics({"train_loss": 1.0}, step=1)
    with tracked(_book(tmp_path, "other")):
        pass
    runs = {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"run-abc", "run-other"}
    one = runs["run-abc"]
    assert one.info.status == "FINISHED"
    assert one.data.params["fit.epochs"] == "2"
    assert "nothing" not in one.data.params
    history = client.get_metric_history(one.info.run_id, "train_loss")
    assert {(point.step, point.value) for point in history} == {(0, 2.0), (1, 1.0)}
