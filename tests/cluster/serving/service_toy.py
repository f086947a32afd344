"""A toy model with its index, the service as a separate process, and a client on one connection."""

import contextlib
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from raystp.artifacts import Artifact, ArtifactWriter
from raystp.index.reference import ReferenceRows
from raystp.index.write import write_reference_index
from raystp.models.bleep.model import seeded_bleep
from raystp.models.bleep.options import BleepOptions
from raystp.models.methods import open_predictor
from raystp.models.store import save_model
from raystp.storage import StoragePath
from tests.conftest import ENVIRONMENT

GENES = [f"G{number}" for number in range(12)]
ROWS, FEATURES, K = 60, 128, 5
TOKEN = "a-token-for-the-tests"
READY_TIMEOUT_S, STOP_TIMEOUT_S = 300.0, 40.0


def finish(store: Path, step: str, name: str, notes: Mapping[str, Any], **rows: int) -> Artifact:
    digest = hashlib.sha256(f"{step}/{name}".encode()).hexdigest()[:12]
    return ArtifactWriter(StoragePath.of(store) / step / f"{name}-{digest}", step, name, digest, {}, {}).finish(
        rows, [], notes
    )


def features(tiles: int, seed: int) -> np.ndarray:
    """Return random features of tiles."""
    values: np.ndarray = np.random.default_rng(seed).standard_normal((tiles, FEATURES)).astype(np.float32)
    return values


def make_model(store: Path, name: str, seed: int) -> Artifact:
    """Write `train/<name>`: BLEEP heads with random weights, for features of the encoder `tiny`."""
    options = BleepOptions(dim=16)
    heads = seeded_bleep(FEATURES, len(GENES), options, seed=seed)
    heads.standardize(features(50, seed))
    meta: dict[str, Any] = {
        "genes": GENES,
        "d_image": FEATURES,
        "options": asdict(options),
        "protocol": "patient",
        "trained_tower": False,
        "encoder": {"name": "tiny"},
    }
    model = finish(store, "train", name, {})
    save_model(model.path, "bleep", dict(heads.state_dict()), meta)
    return model


def make_index(store: Path, name: str, model: Artifact, seed: int) -> Artifact:
    """Write `index/<name>`: image vectors of two patients, with integer expression."""
    from raystp.models.store import load_model  # noqa: PLC0415 -- read back as the service does

    opened: Any = open_predictor(*load_model(model.path))
    rng = np.random.default_rng(seed)
    reference = ReferenceRows(
        vectors=opened.embed_images(features(ROWS, seed)),
        expression=rng.integers(0, 9, (ROWS, len(GENES))).astype(np.float32),
        genes=GENES,
        sections=["A1"] * (ROWS // 2) + ["B1"] * (ROWS // 2),
        spots=[f"s{row}" for row in range(ROWS)],
        patients=["P1"] * (ROWS // 2) + ["P2"] * (ROWS // 2),
    )
    path = finish(store, "index", name, {}).path
    description = write_reference_index(path, reference, shards=3, metric="cosine")
    notes = {"bank": description, "model": model.manifest.folder, "patients": ["P1", "P2"], "slides": ["A1", "B1"]}
    return finish(store, "index", name, notes, rows=ROWS, shards=3)


def make_store(store: Path) -> Path:
    """Write `train/toy` with `index/toy`, and `train/other` without an index."""
    make_index(store, "toy", make_model(store, "toy", seed=1), seed=2)
    make_model(store, "other", seed=3)
    return store


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass(frozen=True)
class ClientResponse:
    """A response as the client received it."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def values(self) -> Any:
        return json.loads(self.content)

    @property
    def error(self) -> str:
        (key, message), *others = self.values.items()
        assert (key, others) == ("error", []), self.content
        return str(message)


class Client:
    """One keep-alive connection for many requests."""

    def __init__(self, port: int, token: str | None = TOKEN, timeout_s: float = 60) -> None:
        self._port, self._timeout_s = port, timeout_s
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._connection: http.client.HTTPConnection | None = None

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> ClientResponse:
        """Send a request; a dict or list is sent as JSON."""
        sent = {"content-type": "application/json"} | self._headers | dict(headers or {})
        if isinstance(body, dict | list):
            body = json.dumps(body).encode()
        fresh = self._connection is None
        connection = self._connection or http.client.HTTPConnection("127.0.0.1", self._port, timeout=self._timeout_s)
        self._connection = connection
        try:
            connection.request(method, path, body, sent)
            received = connection.getresponse()
        except (ConnectionError, http.client.RemoteDisconnected):
            self.close()
            if fresh:
                raise
            return self.request(method, path, body, headers)  # the server may close an idle connection
        lowered = {name.lower(): value for name, value in received.getheaders()}
        response = ClientResponse(received.status, lowered, received.read())
        if received.will_close:
            self.close()
        return response

    def impute(self, body: Any, headers: Mapping[str, str] | None = None, query: str = "") -> ClientResponse:
        return self.request("POST", f"/v1/impute{query}", body, headers)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _parent(process: Path) -> int:
    with contextlib.suppress(OSError):
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    return 0


@dataclass
class RunningService:
    """`raystp serve` as a process."""

    process: subprocess.Popen[str]
    port: int
    lines: list[str] = field(default_factory=list)
    stop_s: float = 0.0
    clients: list[Client] = field(default_factory=list)

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def client(self, token: str | None = TOKEN, timeout_s: float = 60) -> Client:
        self.clients.append(Client(self.port, token, timeout_s))
        return self.clients[-1]

    def close_clients(self) -> None:
        """Close the connections of all clients."""
        while self.clients:
            self.clients.pop().close()

    def processes(self, title: str) -> list[int]:
        """Return the pids of this service's processes whose command line contains `title`."""
        parents = {int(path.name): _parent(path) for path in Path("/proc").iterdir() if path.name.isdigit()}
        found, below = [], {self.process.pid}
        while new := {pid for pid, parent in parents.items() if parent in below} - below:
            below |= new
        for pid in sorted(below):
            with contextlib.suppress(OSError):
                if title in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace"):
                    found.append(pid)
        return found

    def rss(self) -> int:
        """Return the resident bytes of the replicas and the proxy."""
        pids = [pid for word in ("ServeReplica", "ProxyActor") for pid in self.processes(word)]
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) << 12 for pid in pids)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait; return the exit status."""
        start = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(60)
        self.stop_s = time.monotonic() - start
        return status


@contextlib.contextmanager
def running_service(store: Path, values: Mapping[str, Any], **environment: str) -> Iterator[RunningService]:
    """Run the service inside the `with`; fail with its output if it does not start."""
    port = free_port()
    config = {"model": "train/toy", "index": "index/toy", **values}
    config["run"] = {"store": str(store), "port": port, **values.get("run", {})}
    path = store.parent / f"serve-{port}.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "raystp.cli", "serve", "--config", str(path)]
    variables = {**os.environ, **ENVIRONMENT, **environment}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables, cwd=store
    )
    service = RunningService(process, port)
    reader = threading.Thread(target=service.read, daemon=True)
    reader.start()
    try:
        until = time.monotonic() + READY_TIMEOUT_S
        while not any("serve: ready at " in line for line in service.lines):
            assert process.poll() is None, "\n".join(service.lines)
            assert time.monotonic() < until, "\n".join(service.lines)
            time.sleep(0.05)
        yield service
    finally:
        service.close_clients()
        service.stop()
        reader.join(10)
        assert process.stdout is not None
        process.stdout.close()
