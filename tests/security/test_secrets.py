"""A canary in every credential is in no output, log, config, manifest or traceback of the command line.

The store alone: `tests/storage/test_secrets.py`. MLflow's records: `tests/cluster/tracking/test_tracking.py`. The
service: `tests/steps/serve`, `tests/cluster/serving/test_guard.py`. A cluster's token: `tests/cluster/test_token.py`.
"""

import logging
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import pytest

from raystp import cli
from raystp.storage import StoragePath
from tests.conftest import ROOT

CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "RAY_AUTH_TOKEN",
    "RAY_REDIS_PASSWORD",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "HF_TOKEN",
    "TOKEN_OF_A_SERVICE",
)
CANARY = "CANARY"
NOWHERE = "endpoint=http://127.0.0.1:9"
TRACKING = "http://userCANARY:passwordCANARY@127.0.0.1:9"
STORE = f"s3://keyCANARY:secretCANARY@bucket/store?{NOWHERE}&sig=queryCANARY"
AWAY = "s3://bucket/store?scheme=http&endpoint_override=127.0.0.1:9&region=us-east-1"
"""A valid address, to which the credentials of the environment would be sent."""


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set each credential; nothing listens at the addresses, so each command ends with an error."""
    for number, name in enumerate(CREDENTIALS):
        monkeypatch.setenv(name, f"{CANARY}{number:02d}abcdefghijklmnop")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")


def _table(folder: Path) -> str:
    """A slide table with a secret in each path."""
    path = folder / "slides.csv"
    slide = f"s3://keyCANARY:secretCANARY@bucket/a.svs?{NOWHERE}"
    path.write_text(f"slide,path,patient,layout,counts\nS1,{slide},P1,scverse,{slide}\n")
    return str(path)


COMMANDS: dict[str, list[str]] = {
    "help": ["--help"],
    "help of a step": ["serve", "--help"],
    "version": ["--version"],
    "an unknown field": ["tile", f"run.stroe={STORE}"],
    "a wrong value": ["tile", "slides=TABLE", "tile_um=wide", f"run.store={STORE}"],
    "a dry run": ["spots", "slides=TABLE", "run.store=FOLDER", "--dry-run"],
    "a dry run of another store": ["tile", "slides=TABLE", f"run.store={STORE}", "--dry-run"],
    "a store that is away": ["tile", "slides=TABLE", f"run.store={STORE}"],
    "slides of a store that is away": ["slides", f"slides={STORE}"],
    "inspection of a store that is away": ["inspect", STORE],
    "a model that is away": ["publish", f"model={STORE}", "out=FOLDER", "run.store=FOLDER"],
    "a config of a store": ["tile", "--config", STORE],
    "a plan for a store": ["plan", "slides=TABLE", f"run.store={STORE}"],
    "a store that does not answer": ["tile", "slides=TABLE", f"run.store={AWAY}"],
    "slides of a store that does not answer": ["slides", f"slides={AWAY}"],
    "a plan of slides that do not answer": ["plan", AWAY, f"run.store={AWAY}"],
    "the doctor of a store that does not answer": ["doctor", f"run.store={AWAY}"],
    "the doctor of a store": ["doctor", f"run.store={STORE}", f"run.tracking={TRACKING}"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_shows_a_credential(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    words = [one.replace("TABLE", _table(tmp_path)).replace("FOLDER", str(tmp_path / "out")) for one in COMMANDS[name]]
    try:
        status = cli.main(words)
    except SystemExit as end:
        status = int(end.code or 0)
    out, err = capfd.readouterr()
    assert (status == 0) == (name in {"help", "help of a step", "version", "a dry run"}), out + err
    shown = out + err + caplog.text
    files = "".join(path.read_text() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert [line for line in (shown + files).splitlines() if CANARY in line] == []
    assert len(out + err) > 20


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(900)
def test_no_file_of_a_run_holds_a_credential(tmp_path: Path) -> None:
    """The artifacts, reports, MLflow's records and files, and the logs of Ray's head, nodes and workers."""
    with tempfile.TemporaryDirectory(prefix="ray") as sessions:  # Ray's sockets need a short path
        words = [sys.executable, "-m", "raystp.cli", "demo", "--config", str(ROOT / "conf" / "demo" / "smoke.yaml")]
        done = subprocess.run(
            [*words, f"run.store={tmp_path / 'store'}"],
            env=os.environ | {"RAY_TMPDIR": sessions},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        files = [file for folder in (tmp_path, Path(sessions)) for file in folder.rglob("*") if file.is_file()]
        assert {"mlflow.db", "report.html", "manifest.json", "gcs_server.out"} <= {file.name for file in files}
        assert [file for file in files if CANARY.encode() in file.read_bytes()] == []
    assert CANARY not in done.stdout + done.stderr


def test_no_traceback_shows_a_credential(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    seen = []
    for uri in (STORE, f"az://keyCANARY:secretCANARY@container/k?{NOWHERE}&sig=queryCANARY"):
        path = StoragePath.of(uri)
        for use in (path.exists, path.names, path.read_bytes, path.check_writable):
            try:
                use()
            except Exception as error:  # noqa: BLE001 -- whatever is raised is printed
                seen.append("".join(traceback.format_exception(error)))
    assert len(seen) > 4
    assert CANARY not in "".join(seen) + caplog.text
