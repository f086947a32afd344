"""The token of a Ray cluster: a wrong or missing one is named, with the command that prints the right one."""

import subprocess
import sys
from pathlib import Path

import pytest

from raystp.cluster.environment import explain_token
from tests.cluster.job_cluster import Cluster
from tests.conftest import ROOT

WRONG = "w" * 64


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"RAY_AUTH_TOKEN": WRONG},
            "refuses the token of RAY_AUTH_TOKEN: set it to the right one; `ray get-auth-token`",
        ),
        (
            {"RAY_AUTH_MODE": "disabled"},
            "RAY_AUTH_MODE=disabled sends none: set RAY_AUTH_MODE=token; `ray get-auth-tok",
        ),
        ({}, "there is none in RAY_AUTH_TOKEN or /none/.ray/auth_token: set RAY_AUTH_MODE=token RAY_AUTH_TOKEN; `ray"),
    ],
)
def test_a_refused_token_is_named_by_where_it_is_from(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], sentence: str
) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/none", **variables}.items():
        monkeypatch.setenv(name, value)
    said = explain_token("gcs_client.cc: Unauthenticated: RPC error: InvalidAuthToken: Authentication token is missing")
    assert said is not None
    assert sentence in said
    assert WRONG not in said
    assert explain_token("Failed to connect to Ray cluster at 127.0.0.1:1") is None


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"RAY_AUTH_TOKEN": WRONG},
            "refuses the token of RAY_AUTH_TOKEN: set it to the right one; `ray get-auth-token`",
        ),
        ({"HOME": "{empty}"}, "needs a token, and there is none in RAY_AUTH_TOKEN or {empty}/.ray/auth_token: set"),
        ({}, ""),
    ],
    ids=["wrong", "absent", "right"],
)
def test_the_doctor_names_a_wrong_token_of_a_cluster_and_the_next_command(
    cluster: Cluster, tmp_path: Path, variables: dict[str, str], sentence: str
) -> None:
    changed = {name: value.format(empty=tmp_path) for name, value in variables.items()}
    environment = {**cluster.environment, **changed, "PYTHONPATH": str(ROOT)}
    words = ["doctor", "--run.address", cluster.gcs, "--run.store", str(tmp_path / "store"), "--run.tracking", "none"]
    command = [sys.executable, "-m", "raystp.cli", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    (line,) = [one for one in done.stdout.splitlines() if one[9:13] == "Ray "]
    assert sentence.format(empty=tmp_path) in line
    assert line.startswith("error" if sentence else "ok")
    assert done.returncode == bool(sentence)
    assert WRONG not in done.stdout + done.stderr
    assert "InvalidAuthToken" not in done.stderr
