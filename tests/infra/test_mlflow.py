"""The tracking server: its objects, its access, and its command run on loopback."""

import copy
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

Object = dict[str, Any]
SERVICE = "raystp-mlflow"
START_TIMEOUT_S = 180.0


@pytest.fixture(scope="module")
def objects(infra: Path, build: Callable[[Path], list[Object]]) -> Mapping[str, Object]:
    """Kind -> the only object of that kind."""
    return {one["kind"]: one for one in build(infra / "mlflow")}


@pytest.fixture(scope="module")
def pod(objects: Mapping[str, Object]) -> Object:
    spec: Object = objects["Deployment"]["spec"]["template"]["spec"]
    return spec


@pytest.fixture(scope="module")
def compose(infra: Path) -> Object:
    service: Object = yaml.safe_load((infra / "mlflow" / "compose.yaml").read_text())["services"]["mlflow"]
    return service


@pytest.fixture(scope="module")
def command(pod: Object) -> list[str]:
    container = pod["containers"][0]
    return [*container["command"], *container["args"]]


def test_every_object_is_valid(objects: Mapping[str, Object], faults: Callable[[Object], list[str]]) -> None:
    assert sorted(objects) == ["Deployment", "NetworkPolicy", "PersistentVolumeClaim", "Service"]
    assert {kind: faults(one) for kind, one in objects.items() if faults(one)} == {}


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [("Deployment", "replica", 1), ("Service", "ports", {}), ("NetworkPolicy", "ingres", []), ("Service", "type", 3)],
)
def test_an_invalid_object_is_refused(
    objects: Mapping[str, Object], faults: Callable[[Object], list[str]], *, kind: str, field: str, value: Any
) -> None:
    broken = copy.deepcopy(objects[kind])
    broken["spec"][field] = value
    assert field in "\n".join(faults(broken))


def test_the_objects_refer_to_each_other(objects: Mapping[str, Object], pod: Object) -> None:
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert objects["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert objects["Service"]["spec"]["selector"] == labels
    assert objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    (port,) = pod["containers"][0]["ports"]
    (service,) = objects["Service"]["spec"]["ports"]
    assert service["targetPort"] == port["name"]
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["volumes"]
        if len(volume) > 1 and "emptyDir" not in volume
    }
    assert claims == {objects["PersistentVolumeClaim"]["metadata"]["name"]}


def test_only_raystps_pods_reach_the_server(
    objects: Mapping[str, Object], overlays: Mapping[str, list[Object]]
) -> None:
    assert objects["Service"]["spec"]["type"] == "ClusterIP"
    policy = objects["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == []
    (rule,) = policy["ingress"]
    (pods,) = rule["from"]
    assert [port["port"] for port in rule["ports"]] == [5000]
    labels = pods["podSelector"]["matchLabels"].items()
    (cluster,) = (one["spec"] for one in overlays["aws"] if one["kind"] == "RayCluster")
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert labels <= group["template"]["metadata"]["labels"].items()


def test_sqlite_has_one_writer(objects: Mapping[str, Object]) -> None:
    assert objects["Deployment"]["spec"]["replicas"] == 1
    assert objects["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}


def test_on_one_machine_the_server_listens_on_loopback_only(compose: Object, command: list[str]) -> None:
    assert compose["ports"] == ["127.0.0.1:5000:5000"]
    assert [word for word in compose["command"] if word not in command] == ["--allowed-hosts=localhost:*,127.0.0.1:*"]
    assert len(compose["command"]) == len(command)
    assert compose["cap_drop"] == ["ALL"]
    assert compose["security_opt"] == ["no-new-privileges:true"]
    assert compose["volumes"] == ["data:/data"]  # the image creates it for the server's user


@pytest.mark.filterwarnings("ignore:.*AnyType:UserWarning")  # MLflow's command line warns about its own types
def test_mlflow_has_every_flag_that_it_is_started_with(
    command: list[str], options_of: Callable[[Any], set[str]]
) -> None:
    from mlflow.cli import server  # noqa: PLC0415 -- only this test pays for the import

    assert command[:2] == ["mlflow", "server"]
    flags = {word.partition("=")[0] for word in command[2:]}
    assert flags <= options_of(server)
    assert "--backend-store-uris" not in options_of(server)


@pytest.fixture(scope="module")
def address(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """The server, started with the manifest's command; folder, port and interface are the test's."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    changed = {"--host=0.0.0.0": "--host=127.0.0.1", "--port=5000": f"--port={port}", "--workers=2": "--workers=1"}
    assert set(changed) <= set(command)
    words = [changed.get(word, word).replace("/data/", f"{folder}/") for word in command]
    words[0] = str(Path(sys.executable).parent / "mlflow")
    environment = {**os.environ, "HOME": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            words, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        until = time.monotonic() + START_TIMEOUT_S
        while _status(port, "/health", f"127.0.0.1:{port}") != 200:
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.2)
        yield re.sub(r".*--allowed-hosts=(\S+).*", r"\1", " ".join(command)), port
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _status(port: int, path: str, host: str) -> int | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers={"Host": host})
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


@pytest.mark.slow
def test_the_server_accepts_only_the_allowed_hosts(address: tuple[str, int]) -> None:
    hosts, port = address
    experiment = "/api/2.0/mlflow/experiments/get?experiment_id=0"
    allowed = [host.replace("*", str(port)) for host in hosts.split(",")]
    assert {host: _status(port, experiment, host) for host in allowed} == dict.fromkeys(allowed, 200)
    assert _status(port, experiment, "elsewhere.example:5000") == 403
    assert f"{SERVICE}:5000" in allowed
