"""The service under fuzzed requests and a killed replica: only requests in flight fail, and it recovers."""

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raystp.cluster.serving.arrow import STREAM
from tests.cluster.serving.service_toy import (
    GENES,
    TOKEN,
    Client,
    ClientResponse,
    RunningService,
    features,
    make_store,
    running_service,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]

FUZZED = 10_000
CLIENTS = 4
GOOD = {"embeddings": features(2, 0).tolist(), "genes": GENES[:2], "k": 5}
EXPECTED_STATUSES = {200, 400, 401, 404, 405, 408, 413, 415, 422, 503}
INVALID_HTTP = b"Invalid HTTP request received."
"""Body of uvicorn's own 400, in plain text, for bytes that are not HTTP/1.1; no application sees such a request."""
MEMORY_GROWTH = 400 << 20
"""Bytes by which replicas and proxy may grow: the bodies of all concurrent requests, parsed."""
JSON_VALUES = [
    None,
    True,
    0,
    -1,
    5,
    2**63,
    10**400,
    0.5,
    1e308,
    -0.0,
    float("nan"),
    float("inf"),
    "",
    "G0",
    "\x00",
    "é" * 99,
]
KEYS = ["embeddings", "genes", "k", "weights", "spread", "neighbours", "without", "pixels", "slide", "region", "x", ""]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("faults") / "store")


@pytest.fixture(scope="module")
def service(store: Path) -> Iterator[RunningService]:
    values: dict[str, Any] = {
        "encoder": {"name": "tiny"},
        "slides": [str(store)],
        "tile_um": 112.0,
        "token": {"env": "TOKEN_OF_TEST"},
        "limits": {"deadline_s": 20.0, "body_bytes": 1 << 20},
        "run": {"replicas": 2, "cpus": 0.5},
    }
    with running_service(store, values, TOKEN_OF_TEST=TOKEN) as one:
        yield one


def random_json(rng: np.random.Generator, depth: int = 0) -> Any:
    """Return a random JSON value."""
    kind = rng.integers(8) if depth < 5 else 0
    if kind == 1:
        return [random_json(rng, depth + 1) for _ in range(rng.integers(6))]
    if kind == 2:
        return {str(rng.choice(KEYS)): random_json(rng, depth + 1) for _ in range(rng.integers(5))}
    return JSON_VALUES[rng.integers(len(JSON_VALUES))]


def altered_request(rng: np.random.Generator) -> Any:
    """Return a valid request with one part replaced by a random value."""
    body: dict[str, Any] = json.loads(json.dumps(GOOD))
    key = str(rng.choice(KEYS))
    where = rng.integers(4)
    if where == 0:
        body["embeddings"][0][rng.integers(128)] = random_json(rng)
    elif where == 1:
        body["embeddings"] = [*body["embeddings"][: rng.integers(3)], random_json(rng)]
    else:
        body[key] = random_json(rng)
    return body


def corrupted(rng: np.random.Generator, content: bytes) -> bytes:
    """Replace random bytes; sometimes truncate."""
    found = bytearray(content)
    for position in rng.integers(0, max(1, len(found)), rng.integers(1, 9)):
        found[position : position + 1] = rng.bytes(1)
    return bytes(found[: rng.integers(len(found) + 1)]) if rng.integers(3) == 0 else bytes(found)


def fuzzed_request(rng: np.random.Generator) -> tuple[str, str, bytes, dict[str, str]]:
    """Return method, path, body and headers of a random request."""
    kind, headers = rng.integers(6), {}
    if kind == 0:
        body = rng.bytes(int(rng.integers(2000)))
    elif kind == 1:
        body = json.dumps(random_json(rng)).encode()
    elif kind in {2, 3}:
        body = json.dumps(altered_request(rng)).encode()
    else:
        body = corrupted(rng, json.dumps(GOOD).encode())
    if rng.integers(4) == 0:
        headers["content-type"] = [STREAM, "text/plain", "", "application/json; charset=\xff"][rng.integers(4)]
    if rng.integers(8) == 0:
        names = ["accept", "x-request-id", "serve-multiplexed-model-id", "x-request-timeout-seconds", "cookie"]
        headers[str(rng.choice(names))] = bytes(rng.integers(33, 255, 40, np.uint8)).decode("latin-1")
    path = "/v1/impute" + ["", "?k=5", "?genes=%ff%00", "?k=x&k=y"][rng.integers(4)]
    if rng.integers(20) == 0:
        path = "/" + "".join(f"%{byte:02x}" for byte in rng.bytes(int(rng.integers(60))))
    return str(rng.choice(["POST"] * 9 + ["PUT", "GET", "PATCH"])), path, body, headers


def _has_message(response: ClientResponse) -> bool:
    """Return whether an error is JSON with a message, or uvicorn's own refusal of bytes that are not HTTP."""
    if response.headers["content-type"] == "application/json":
        return bool(response.error)
    return response.status == 400 and response.content == INVALID_HTTP


def test_each_of_ten_thousand_fuzzed_requests_gets_an_error_message_and_the_service_survives(
    service: RunningService,
) -> None:
    first = service.client()
    before = first.impute(GOOD)
    assert before.status == 200
    replicas, rss_before = service.processes("ServeReplica"), service.rss()
    seen: Counter[int] = Counter()
    unexpected: list[str] = []

    def send(seed: int) -> None:
        rng, client = np.random.default_rng(seed), service.client()
        for _ in range(FUZZED // CLIENTS):
            request = fuzzed_request(rng)
            response = client.request(*request)
            seen[response.status] += 1
            valid = response.status == 200 or _has_message(response)
            if response.status not in EXPECTED_STATUSES or not valid or b"Traceback" in response.content:
                unexpected.append(f"{response} to {request}"[:2000])

    threads = [threading.Thread(target=send, args=(seed,)) for seed in range(CLIENTS)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert unexpected == [], "\n".join(unexpected[:5])
    assert seen.total() == FUZZED
    assert {200, 400, 404, 405, 415, 422} <= set(seen)
    assert service.processes("ServeReplica") == replicas  # none died
    assert service.rss() - rss_before < MEMORY_GROWTH
    after = first.impute(GOOD)
    assert (after.status, after.values) == (200, before.values)
    service.close_clients()


def test_a_killed_replica_fails_only_its_active_requests(service: RunningService) -> None:
    victim, *_ = service.processes("ServeReplica:raystp")
    stop, responses = threading.Event(), []

    def load() -> None:
        client: Client = service.client()
        while not stop.is_set():
            start = time.monotonic()
            response = client.impute(GOOD)
            responses.append((start, response.status, response.content))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for one in threads:
        one.start()
    time.sleep(2)
    killed = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    time.sleep(8)
    stop.set()
    for one in threads:
        one.join()
    failed = [(start - killed, status, content) for start, status, content in responses if status != 200]
    assert len(failed) <= len(threads)
    assert {status for _, status, _ in failed} <= {503}
    assert all(b"error" in content for _, _, content in failed)
    assert max([start for start, _, _ in failed], default=0) < 2
    assert sum(start > killed for start, status, _ in responses if status == 200) > 20
    until = time.monotonic() + 120
    while len(service.processes("ServeReplica:raystp")) < 2:  # Serve starts it again
        assert time.monotonic() < until
        time.sleep(0.5)
    assert service.client().impute(GOOD).status == 200
    service.close_clients()
