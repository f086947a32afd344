"""The reverse proxy: valid manifests, limits that match the service's, and a real nginx in front of a stub service."""

import contextlib
import http.client
import http.server
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from raystp.steps.serve.config import LimitsConfig

Object = dict[str, Any]
UPSTREAM, LISTEN, TLS = "raystp-serve-svc:8000", "listen 8443 ssl", "/etc/nginx/tls/"
TIMEOUT_S = 1


@pytest.fixture(scope="module")
def text(infra: Path) -> str:
    return (infra / "nginx" / "nginx.conf").read_text()


@pytest.fixture(scope="module")
def objects(infra: Path, build: Callable[[Path], list[Object]]) -> dict[str, Object]:
    return {one["kind"]: one for one in build(infra / "nginx")}


def test_the_objects_are_valid(objects: dict[str, Object], faults: Callable[[Object], list[str]]) -> None:
    assert sorted(objects) == ["ConfigMap", "Deployment", "Service"]
    assert {kind: faults(one) for kind, one in objects.items() if faults(one)} == {}


def test_the_pod_mounts_the_config_and_the_certificate_and_is_not_root(objects: dict[str, Object], text: str) -> None:
    assert objects["ConfigMap"]["data"]["nginx.conf"] == text
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["conf"]["configMap"]["name"] == objects["ConfigMap"]["metadata"]["name"]
    (container,) = pod["containers"]
    assert {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]} == {
        "conf": "/etc/nginx/nginx.conf",
        "tls": TLS.rstrip("/"),
        "scratch": "/tmp",
    }
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    (port,) = container["ports"]
    assert f"listen {port['containerPort']} ssl" == LISTEN
    assert LISTEN in text


def test_the_service_selects_the_pods(objects: dict[str, Object]) -> None:
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert objects["Service"]["spec"]["selector"].items() <= labels.items()
    assert objects["Deployment"]["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_the_limits_match_those_of_the_service(text: str) -> None:
    limits = LimitsConfig()
    assert int(re.findall(r"client_max_body_size (\d+)m;", text)[0]) << 20 == limits.body_bytes
    assert float(re.findall(r"proxy_read_timeout (\d+)s;", text)[0]) > limits.deadline_s
    assert int(re.findall(r"limit_conn per_client (\d+);", text)[0]) <= limits.requests


@dataclass
class Proxy:
    """A running nginx and the stub service behind it."""

    port: int
    context: ssl.SSLContext
    bodies: list[bytes] = field(default_factory=list)
    """Bodies that reached the stub service."""
    delay_s: float = 0.0

    def connect(self) -> ssl.SSLSocket:
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        return self.context.wrap_socket(raw, server_hostname="localhost")

    def request(self, body: bytes) -> tuple[int, Any]:
        connection = http.client.HTTPSConnection("localhost", self.port, context=self.context, timeout=30)
        with contextlib.closing(connection):
            connection.request("POST", "/v1/impute", body)
            response = connection.getresponse()
            return response.status, json.loads(response.read())


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def nginx() -> str:
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if found is None:
        pytest.skip("nginx is not installed; install it with the system's package manager, such as apt install nginx")
    return found


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed; it creates the test's certificate")
    folder = tmp_path_factory.mktemp("tls")
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(folder / "tls.key")]
    subprocess.run([*command, "-out", str(folder / "tls.crt")], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def proxy(nginx: str, certificate: Path, text: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """The file as it is, with a test's ports, folders and shorter timeouts."""
    folder = tmp_path_factory.mktemp("nginx")
    one = Proxy(_free_port(), ssl.create_default_context(cafile=str(certificate / "tls.crt")))

    class Stub(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            one.bodies.append(self.rfile.read(int(self.headers["content-length"])))
            time.sleep(one.delay_s)
            content = b'{"genes": []}'
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the parent's signature
            del format, args

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stub) as stub:
        threading.Thread(target=stub.serve_forever, daemon=True).start()
        changes = {
            "/tmp/": f"{folder}/",  # first, since the other folders are below /tmp too
            UPSTREAM: f"127.0.0.1:{stub.server_address[1]}",
            LISTEN: f"listen 127.0.0.1:{one.port} ssl",
            TLS: f"{certificate}/",
            "client_header_timeout 10s": f"client_header_timeout {TIMEOUT_S}s",
            "client_body_timeout 10s": f"client_body_timeout {TIMEOUT_S}s",
            "limit_conn per_client 32": "limit_conn per_client 8",
            "/dev/stderr warn": f"{folder}/error.log warn",
        }
        changed = text
        for old, new in changes.items():
            assert old in changed, old
            changed = changed.replace(old, new)
        (folder / "nginx.conf").write_text(changed)
        command = [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf")]
        done = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        process = subprocess.Popen([*command, "-g", "daemon off;"], stderr=subprocess.DEVNULL)
        try:
            _wait(one, process, folder)
            yield one
        finally:
            process.terminate()
            process.wait(20)
            stub.shutdown()


def _wait(proxy: Proxy, process: subprocess.Popen[bytes], folder: Path) -> None:
    for _ in range(100):
        assert process.poll() is None, (folder / "error.log").read_text()
        with contextlib.suppress(OSError), proxy.connect():
            return
        time.sleep(0.1)
    raise AssertionError((folder / "error.log").read_text())


def test_a_complete_request_passes_over_tls(proxy: Proxy) -> None:
    assert proxy.request(b"x" * 1000) == (200, {"genes": []})
    assert proxy.bodies[-1] == b"x" * 1000


def test_slow_headers_and_slow_bodies_are_cut_off_and_never_reach_the_service(proxy: Proxy) -> None:
    head = b"POST /v1/impute HTTP/1.1\r\nHost: localhost\r\n"
    before, start = len(proxy.bodies), time.monotonic()
    with proxy.connect() as slow_header, proxy.connect() as slow_body:
        slow_header.sendall(head)
        slow_body.sendall(head + b"Content-Length: 100\r\n\r\n{")
        assert proxy.request(b"{}")[0] == 200  # others are not delayed
        assert slow_header.recv(4096) == b""
        assert slow_body.recv(4096) == b""
    assert time.monotonic() - start < 10 * TIMEOUT_S
    assert len(proxy.bodies) == before + 1


def test_a_body_beyond_the_limit_is_refused_in_json(proxy: Proxy) -> None:
    before = len(proxy.bodies)
    with proxy.connect() as one:
        one.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n")
        response = one.recv(4096)
    assert response.startswith(b"HTTP/1.1 413 ")
    assert b'{"error": "the body is larger than the proxy accepts' in response
    assert len(proxy.bodies) == before


def test_a_client_with_too_many_requests_is_told_to_retry(proxy: Proxy) -> None:
    proxy.delay_s, results = 1.0, []
    threads = [threading.Thread(target=lambda: results.append(proxy.request(b"{}"))) for _ in range(24)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    proxy.delay_s = 0.0
    assert {status for status, _ in results} == {200, 503}
    assert {body["error"] for status, body in results if status == 503} == {
        "the service is busy or not ready: retry in 1 s"
    }


def test_plain_http_and_invalid_http_get_json(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=30) as plain:
        plain.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b'{"error": "this port expects https"}' in plain.recv(4096)
    with proxy.connect() as one:
        one.sendall(b"GARBAGE\r\n\r\n")
        assert b'{"error": "not a valid HTTP request' in one.recv(4096)
