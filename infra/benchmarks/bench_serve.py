"""The service under load on loopback: latency, requests per second and batch sizes for growing numbers of clients.

A synthetic model (512 features) with a synthetic index, `raystp serve` as a separate process, and clients that send the
next request as soon as the last response arrives, on one keep-alive connection: `--tiles` tiles, `--request-genes`
genes, k = 50, in JSON. Clients share the machine's cores with the service; their CPU use is printed too.
"""

import argparse
import contextlib
import hashlib
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from raystp.artifacts import Artifact, ArtifactWriter
from raystp.index.reference import ReferenceRows
from raystp.index.write import write_reference_index
from raystp.models.bleep.model import seeded_bleep
from raystp.models.bleep.options import BleepOptions
from raystp.models.store import save_model
from raystp.storage import StoragePath

FEATURES, JOINT = 512, 256
CLIENTS = (1, 4, 16, 64)
READY_TIMEOUT_S = 180.0


@dataclass
class Load:
    """Responses to a number of clients."""

    clients: int
    seconds: list[float] = field(default_factory=list)
    batch_sizes: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    duration_s: float = 0.0
    clients_cpu_s: float = 0.0

    def figures(self) -> dict[str, float]:
        """Return rate, latencies in ms, and batch sizes in requests."""
        good = sorted(self.seconds)
        return {
            "clients": self.clients,
            "requests_per_s": len(good) / self.duration_s,
            "p50_ms": statistics.median(good) * 1000,
            "p99_ms": good[int(0.99 * (len(good) - 1))] * 1000,
            "batch_mean": statistics.fmean(self.batch_sizes),
            "batch_max": max(self.batch_sizes),
            "refused": sum(status == 503 for status in self.statuses),  # noqa: PLR2004 -- HTTP's busy
            "other": sum(status not in {200, 503} for status in self.statuses),
            "clients_cpu": self.clients_cpu_s / self.duration_s,
        }


def main() -> None:
    """Start the service, load it, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--seconds", type=float, default=8.0, help="duration for each number of clients")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--genes", type=int, default=1000, help="of the index")
    parser.add_argument("--tiles", type=int, default=4, help="in a request")
    parser.add_argument("--request-genes", type=int, default=50, help="genes in a request")
    parser.add_argument("--replicas", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_store(Path(folder), options)
        with running_service(Path(folder), options.replicas) as port:
            body = request_body(options)
            load(port, body, Load(4), seconds=2.0)  # warm-up
            found = [load(port, body, Load(clients), seconds=options.seconds).figures() for clients in CLIENTS]
    request = f"{options.tiles} tiles, {options.request_genes} genes, k 50, in JSON"
    print_line(f"{options.rows} rows x {options.genes} genes; a request: {request}")
    print_line("  clients  requests/s   p50 ms   p99 ms  batch mean    max  refused  other  clients' cores")
    for one in found:
        print_line(
            f"  {one['clients']:>7}  {one['requests_per_s']:>10.1f}  {one['p50_ms']:>7.1f}  {one['p99_ms']:>7.1f}  "
            f"{one['batch_mean']:>10.1f}  {one['batch_max']:>5}  {one['refused']:>7}  {one['other']:>5}  "
            f"{one['clients_cpu']:>14.2f}"
        )
    if options.out:
        options.out.write_text(json.dumps({"options": vars(options) | {"out": None}, "loads": found}, indent=1))


def make_store(store: Path, options: argparse.Namespace) -> None:
    """Write `train/bench` and `index/bench`."""
    rng, settings = np.random.default_rng(0), BleepOptions(dim=JOINT)
    genes = [f"G{number}" for number in range(options.genes)]
    meta: dict[str, Any] = {"genes": genes, "d_image": FEATURES, "options": asdict(settings), "protocol": "patient"}
    model = finished(store, "train", {})
    weights = seeded_bleep(FEATURES, len(genes), settings, seed=0).state_dict()
    save_model(model.path, "bleep", dict(weights), meta | {"trained_tower": False, "encoder": {"name": "bench"}})
    rows = options.rows
    reference = ReferenceRows(
        vectors=rng.standard_normal((rows, JOINT), np.float32),
        expression=rng.random((rows, len(genes)), np.float32),
        genes=genes,
        sections=["A"] * rows,
        spots=[str(row) for row in range(rows)],
        patients=["P"] * rows,
    )
    description = write_reference_index(finished(store, "index", {}).path, reference, shards=2, metric="cosine")
    finished(store, "index", {"bank": description, "model": model.manifest.folder}, rows=rows)


def finished(store: Path, step: str, notes: dict[str, Any], **rows: int) -> Artifact:
    """Finish the artifact `<step>/bench`."""
    digest = hashlib.sha256(step.encode()).hexdigest()[:12]
    return ArtifactWriter(StoragePath.of(store) / step / f"bench-{digest}", step, "bench", digest, {}, {}).finish(
        rows, [], notes
    )


def request_body(options: argparse.Namespace) -> bytes:
    """Return a request's body."""
    tiles = np.random.default_rng(1).standard_normal((options.tiles, FEATURES)).astype(np.float32)
    genes = [f"G{number}" for number in range(options.request_genes)]
    return json.dumps({"embeddings": tiles.tolist(), "genes": genes, "k": 50}).encode()


@contextlib.contextmanager
def running_service(store: Path, replicas: int) -> Iterator[int]:
    """Run the service inside the `with`; yield its port."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = int(one.getsockname()[1])
    overrides = [
        "model=train/bench",
        "index=index/bench",
        f"run.store={store}",
        f"run.port={port}",
        f"run.replicas={replicas}",
    ]
    command = [sys.executable, "-m", "raystp.cli", "serve", *(word for one in overrides for word in ("--set", one))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={"RAY_AUTH_MODE": "disabled", **os.environ})
    try:
        until = time.monotonic() + READY_TIMEOUT_S
        while not is_ready(port):
            if process.poll() is not None or time.monotonic() > until:
                sys.exit("the service did not start")
            time.sleep(0.2)
        yield port
    finally:
        process.terminate()
        process.wait(60)


def is_ready(port: int) -> bool:
    """Return whether the service is ready."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def load(port: int, body: bytes, into: Load, *, seconds: float) -> Load:
    """Send requests from all clients for some seconds."""
    gate, lock = threading.Barrier(into.clients), threading.Lock()

    def client(_: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        gate.wait()
        until = time.monotonic() + seconds
        while (start := time.monotonic()) < until:
            connection.request("POST", "/v1/impute", body, {"content-type": "application/json"})
            response = connection.getresponse()
            response.read()
            with lock:
                into.statuses.append(response.status)
                if response.status == http.HTTPStatus.OK:
                    into.seconds.append(time.monotonic() - start)
                    into.batch_sizes.append(int(response.headers["x-raystp-batch"]))
        connection.close()

    start, cpu = time.monotonic(), time.process_time()
    with ThreadPoolExecutor(into.clients) as pool:
        list(pool.map(client, range(into.clients)))
    into.duration_s, into.clients_cpu_s = time.monotonic() - start, time.process_time() - cpu
    return into


def print_line(line: str) -> None:
    """Print a line and flush."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
