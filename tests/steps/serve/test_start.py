"""Start and stop of `raystp serve`: what it refuses before Serve starts, the config it writes, and its shutdown."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from raystp import cli
from raystp.artifacts import resolve
from raystp.errors import ConfigError
from raystp.steps.serve import step as serve
from tests.cluster.serving.service_toy import STOP_TIMEOUT_S, TOKEN, K, features, running_service

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_within_seconds_with_status_0(store: Path, number: signal.Signals) -> None:
    with running_service(store, {"run": {"shard_actors": 2, "replicas": 2, "cpus": 0.5}}) as one:
        response = one.client(None).impute({"embeddings": features(1, 0).tolist(), "k": K})
        assert response.status == 200, response.content
        assert one.stop(number) == 0
    assert one.stop_s < STOP_TIMEOUT_S
    assert "no token required" in one.lines[0]
    assert one.lines[-2] == f"serve: stopped (http://127.0.0.1:{one.port})"
    assert json.loads(one.lines[-1])["status"] == "done"


def refused(*overrides: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the error message of a start that fails."""
    assert cli.main(["serve", *overrides]) == 1
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    return f"{last['error']}: {last['message']}"


def test_an_index_of_another_model_is_refused(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = refused("model=train/other", "index=index/toy", f"run.store={store}", capsys=capsys)
    toy, other = (resolve(str(store), f"train/{name}", "train").manifest.folder for name in ("toy", "other"))
    assert error.startswith("ModelError: the index ")
    assert f"was built with model {toy}, not with {other}: build an index with this model, or serve that" in error


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["run.host=0.0.0.0"],
            "run.host 0.0.0.0 is not loopback, which requires a token: set token.file or token.env",
        ),
        (["run.host='::'"], "run.host :: is not loopback, which requires a token"),
        (["run.host=192.0.2.7", "token={}"], "run.host 192.0.2.7 is not loopback, which requires a token"),
        (["run.host=0.0.0.0", "token.env=NO_SUCH_TOKEN"], "variable NO_SUCH_TOKEN cannot be read: not set"),
        (["token.env=NO_SUCH_TOKEN"], "token environment variable NO_SUCH_TOKEN cannot be read: not set"),
        (["token.env=A", "token.file=/b"], "token.file and token.env are both set: remove one"),
        (["slides=[/tmp]"], "`slides` needs `encoder`, which turns their tiles into features: set it"),
        (["slides=[/tmp]", "encoder.name=tiny"], "does not record the side of its tiles: set tile_um (um)"),
        (["limits.tiles=9999"], "batch.tiles 2048 is smaller than limits.tiles 9999"),
        (
            ["encoder.name=resnet50", "encoder.random=true"],
            "128 features of encoder 'tiny', and encoder 'resnet50' gives 1024",
        ),
        (["index=index/none"], "no artifact 'index/none'"),
        (["side=112"], "renamed to tile_um"),
        (["far=0.5"], "renamed to far_distance"),
        (["run.actors=2"], "renamed to run.shard_actors"),
        (["run.copies=2"], "renamed to run.shard_replicas"),
        (["run.written=/a"], "renamed to run.config_file"),
    ],
)
def test_invalid_configs_are_refused_before_serve_starts(
    store: Path, overrides: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    start = time.monotonic()
    assert message in refused("model=train/toy", "index=index/toy", f"run.store={store}", *overrides, capsys=capsys)
    assert time.monotonic() - start < 20


def test_the_written_config_is_valid_in_serves_schema(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    file = tmp_path / "serve.yaml"
    words = ["model=train/toy", "index=index/toy", f"run.store={store}", f"token.file={tmp_path / 'token'}"]
    words += [f"run.config_file={file}", "run.host=0.0.0.0", "run.port=8123", "run.replicas=3", "limits.requests=9"]
    assert cli.main(["serve", *(word for one in words for word in ("--set", one))]) == 0
    assert f"serve: wrote {file}; start the service with: serve deploy {file}\n" in capsys.readouterr().out
    assert TOKEN not in file.read_text()
    schema = ServeDeploySchema.model_validate(yaml.safe_load(file.read_text()))
    (one,) = schema.applications
    assert (schema.http_options.host, schema.http_options.port, one.name) == ("0.0.0.0", 8123, "raystp")
    assert (one.deployments[0].num_replicas, one.deployments[0].max_queued_requests) == (3, 9)
    module, _, name = one.import_path.partition(":")
    assert (module, getattr(serve, name)) == (serve.__name__, serve.build)
    application = serve.build(one.args)
    assert {"Replica"} == {application._bound_deployment.name}
    with pytest.raises(ConfigError, match="may listen on any address: set token"):
        serve.build({key: value for key, value in one.args.items() if key != "token"} | {"run": {"store": str(store)}})
    monkeypatch.chdir(tmp_path)
    assert "is relative" in refused(*words[:2], "run.store=store", "run.config_file=a.yaml", capsys=capsys)


def test_a_port_in_use_is_refused(store: Path, capsys: pytest.CaptureFixture[str], ray_session: None) -> None:  # noqa: ARG001 -- Ray must run
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        port = one.getsockname()[1]
        error = refused("model=train/toy", "index=index/toy", f"run.store={store}", f"run.port={port}", capsys=capsys)
    assert f"run.port: cannot listen on 127.0.0.1:{port} (Address already in use); choose another port" in error


@pytest.mark.faults
def test_a_corrupted_index_file_is_refused(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "store")
    index = resolve(str(tmp_path / "store"), "index/toy", "index").path.local_path
    (shard, *_) = sorted(index.glob("shard-*expression*"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    command = [sys.executable, "-m", "raystp.cli", "serve", "--set", "model=train/toy", "--set", "index=index/toy"]
    command += ["--set", f"run.store={tmp_path / 'store'}"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ}, check=False, cwd=tmp_path)
    assert done.returncode == 1
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["error"] == "ArtifactError"
    assert shard.name in last["message"]
