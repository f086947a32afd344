"""A real MLflow server on loopback, and a proxy in front of it that can be closed, slow, or return errors."""

import contextlib
import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cluster.job_cluster import Cluster, running


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that accepts jobs, beside the test session's Ray."""
    with running(tmp_path_factory.mktemp("home"), free_port) as one:
        yield one


@dataclass
class FaultyProxy:
    """The server's address for clients; `slow_s` delays each connection.

    `state` is open, closed, error, or the status and MLflow's code of a refusal, such as `403 PERMISSION_DENIED`.
    """

    upstream: int
    port: int = 0
    state: str = "open"
    slow_s: float = 0.0
    connections: set[socket.socket] = field(default_factory=set)

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def change(self, state: str) -> None:
        """Change the state and close all connections: a client reuses its connection for many requests."""
        self.state = state
        for one in list(self.connections):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def serve(self, client: socket.socket) -> None:
        if self.state == "closed":
            return
        if self.state == "error":
            client.recv(65536)
            client.sendall(b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        status, _, code = self.state.partition(" ")
        if code:
            client.recv(65536)
            body = json.dumps({"error_code": code, "message": f"refused: {code}"}).encode()
            head = f"HTTP/1.1 {status} No\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            client.sendall(head.encode() + body)
            return
        time.sleep(self.slow_s)
        with socket.create_connection(("127.0.0.1", self.upstream)) as server:
            self.connections |= {client, server}
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server)
            back.join()
            self.connections -= {client, server}


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while block := source.recv(65536):
            target.sendall(block)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="session")
def mlflow_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an MLflow server with SQLite and its own folder of files."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    storage = [
        "--backend-store-uri",
        f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    with (folder / "log.txt").open("wb") as log:
        server = subprocess.Popen([*command, *storage], stdout=log, stderr=log, start_new_session=True)
    try:
        _wait(f"http://127.0.0.1:{port}/health", server, folder / "log.txt")
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, 9)
        server.wait(30)


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(1200):  # minutes on a busy machine
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=1):
            return
        assert server.poll() is None, log.read_text()
        time.sleep(0.25)
    raise AssertionError(log.read_text())


@pytest.fixture
def proxy(mlflow_port: int) -> Iterator[FaultyProxy]:
    """The server behind a proxy, open at first."""
    one = FaultyProxy(mlflow_port)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            one.serve(self.request)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        one.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield one
        server.shutdown()
