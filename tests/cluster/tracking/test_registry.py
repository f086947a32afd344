"""Registration in MLflow: what a server or a database refuses is a sentence, without credentials."""

from pathlib import Path

import pytest
from mlflow import MlflowException

from raystp.cluster.tracking.pyfunc import TablePredictor, tile_signature
from raystp.cluster.tracking.registry import RegisteredModel, register_model
from raystp.cluster.tracking.rejections import reason_of
from raystp.cluster.tracking.runs import RunRef, sqlite_uri
from raystp.errors import Unfinished
from raystp.storage import StoragePath


def _opener(folder: Path) -> TablePredictor:
    raise AssertionError(folder)  # nothing is registered


def test_a_database_that_is_damaged_or_has_no_driver_here_is_named_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    run_ref = RunRef("tests", "run", "train/x", StoragePath.of(tmp_path))
    model = RegisteredModel(
        "x", "0", lambda _: None, _opener, tile_signature(["A"], protocol="patient", needs_places=False), [], "", {}
    )
    for uri in (sqlite_uri(tmp_path / "mlflow.db"), "none://user:secret@host/x"):
        with pytest.raises(Unfinished, match="the folder is written, and MLflow did not register it as 'x'") as error:
            register_model(uri, run_ref, model, {})
        assert "secret" not in str(error.value)


def test_a_long_password_is_not_cut_in_the_middle_and_left_in_the_reason() -> None:
    error = MlflowException(f"API request to http://user:{'s' * 200}@host/api failed")
    assert reason_of(error) == "MlflowException: API request to http://host/api failed"
