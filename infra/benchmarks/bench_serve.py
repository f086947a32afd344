"""The service under load, over loopback: latency and rate as clients grow, and how requests are joined.

A made model (512 features) with a made bank, `raystp serve` as a process of its own, and clients that send the next
request as soon as the last is answered, on one kept connection: `--tiles` tiles, `--asked` genes, k = 50, in JSON.
Clients share the machine's cores with the service; what they take is printed beside.
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
READY_WITHIN_S = 180.0


@dataclass
class Load:
    """What a number of clients saw."""

    clients: int
    seconds: list[float] = field(default_factory=list)
    joined: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    took_s: float = 0.0
    clients_cpu_s: float = 0.0

    def figures(self) -> dict[str, float]:
        """Return rate, latencies in ms, and requests answered together."""
        good = sorted(self.seconds)
        return {
            "clients": self.clients,
            "requests_per_s": len(good) / self.took_s,
            "p50_ms": statistics.median(good) * 1000,
            "p99_ms": good[int(0.99 * (len(good) - 1))] * 1000,
            "joined_mean": statistics.fmean(self.joined),
            "joined_most": max(self.joined),
            "refused": sum(status == 503 for status in self.statuses),  # noqa: PLR2004 -- HTTP's busy
            "other": sum(status not in {200, 503} for status in self.statuses),
            "clients_cpu": self.clients_cpu_s / self.took_s,
        }


def main() -> None:
    """Serve, load, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each number of clients")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--genes", type=int, default=1000, help="of the bank")
    parser.add_argument("--tiles", type=int, default=4, help="in a request")
    parser.add_argument("--asked", type=int, default=50, help="genes in a request")
    parser.add_argument("--replicas", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), options)
        with served(Path(folder), options.replicas) as port:
            body = question(options)
            load(port, body, Load(4), seconds=2.0)  # what is loaded at the first requests
            found = [load(port, body, Load(clients), seconds=options.seconds).figures() for clients in CLIENTS]
    say(f"{options.rows} rows x {options.genes} genes; {options.tiles} tiles, {options.asked} genes, k 50, in JSON")
    say("  clients  requests/s   p50 ms   p99 ms  joined mean  most  refused  other  clients' cores")
    for one in found:
        say(
            f"  {one['clients']:>7}  {one['requests_per_s']:>10.1f}  {one['p50_ms']:>7.1f}  {one['p99_ms']:>7.1f}  "
            f"{one['joined_mean']:>11.1f}  {one['joined_most']:>4}  {one['refused']:>7}  {one['other']:>5}  "
            f"{one['clients_cpu']:>14.2f}"
        )
    if options.out:
        options.out.write_text(json.dumps({"options": vars(options) | {"out": None}, "loads": found}, indent=1))


def make(store: Path, options: argparse.Namespace) -> None:
    """Leave `train/made` and `index/made`."""
    rng, settings = np.random.default_rng(0), BleepOptions(dim=JOINT)
    genes = [f"G{number}" for number in range(options.genes)]
    meta: dict[str, Any] = {"genes": genes, "d_image": FEATURES, "options": asdict(settings), "protocol": "patient"}
    model = finished(store, "train", {})
    weights = seeded_bleep(FEATURES, len(genes), settings, seed=0).state_dict()
    save_model(model.path, "bleep", dict(weights), meta | {"trained_tower": False, "encoder": {"name": "made"}})
    rows = options.rows
    reference = ReferenceRows(
        vectors=rng.standard_normal((rows, JOINT), np.float32),
        expression=rng.random((rows, len(genes)), np.float32),
        genes=genes,
        sections=["A"] * rows,
        spots=[str(row) for row in range(rows)],
        patients=["P"] * rows,
    )
    bank = write_reference_index(finished(store, "index", {}).path, reference, shards=2, metric="cosine")
    finished(store, "index", {"bank": bank, "model": model.manifest.folder}, rows=rows)


def finished(store: Path, step: str, notes: dict[str, Any], **rows: int) -> Artifact:
    """Finish the artifact `<step>/made`."""
    mark = hashlib.sha256(step.encode()).hexdigest()[:12]
    return ArtifactWriter(StoragePath.of(store) / step / f"made-{mark}", step, "made", mark, {}, {}).finish(
        rows, [], notes
    )


def question(options: argparse.Namespace) -> bytes:
    """Return a request's body."""
    tiles = np.random.default_rng(1).standard_normal((options.tiles, FEATURES)).astype(np.float32)
    genes = [f"G{number}" for number in range(options.asked)]
    return json.dumps({"embeddings": tiles.tolist(), "genes": genes, "k": 50}).encode()


@contextlib.contextmanager
def served(store: Path, replicas: int) -> Iterator[int]:
    """Run the service until the end of the `with`."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = int(one.getsockname()[1])
    said = [
        "model=train/made",
        "index=index/made",
        f"run.store={store}",
        f"run.port={port}",
        f"run.replicas={replicas}",
    ]
    words = [sys.executable, "-m", "raystp.cli", "serve", *(word for one in said for word in ("--set", one))]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, env={"RAY_AUTH_MODE": "disabled", **os.environ})
    try:
        until = time.monotonic() + READY_WITHIN_S
        while not answers(port):
            if process.poll() is not None or time.monotonic() > until:
                sys.exit("the service did not come up")
            time.sleep(0.2)
        yield port
    finally:
        process.terminate()
        process.wait(60)


def answers(port: int) -> bool:
    """Say whether the service is ready."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def load(port: int, body: bytes, into: Load, *, seconds: float) -> Load:
    """Let clients ask for some seconds."""
    gate, lock = threading.Barrier(into.clients), threading.Lock()

    def client(_: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        gate.wait()
        until = time.monotonic() + seconds
        while (began := time.monotonic()) < until:
            connection.request("POST", "/v1/impute", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            with lock:
                into.statuses.append(answer.status)
                if answer.status == http.HTTPStatus.OK:
                    into.seconds.append(time.monotonic() - began)
                    into.joined.append(int(answer.headers["x-raystp-batch"]))
        connection.close()

    began, cpu = time.monotonic(), time.process_time()
    with ThreadPoolExecutor(into.clients) as pool:
        list(pool.map(client, range(into.clients)))
    into.took_s, into.clients_cpu_s = time.monotonic() - began, time.process_time() - cpu
    return into


def say(line: str) -> None:
    """Print at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
