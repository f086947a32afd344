"""What clients and crashes do to the service: only requests in flight fail, and it is as well as before afterwards."""

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
from tests.cluster.serving.service_toy import GENES, TOKEN, Client, Served, features, make_store, served

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]

FUZZED = 10_000
CLIENTS = 4
GOOD = {"embeddings": features(2, 0).tolist(), "genes": GENES[:2], "k": 5}
FORESEEN = {200, 400, 401, 404, 405, 408, 413, 415, 422, 503}
MORE_MEMORY = 400 << 20
"""Bytes that replicas and proxy may hold more than before: the bodies that fit in at a time, and their numbers."""
WORDS = [None, True, 0, -1, 5, 2**63, 10**400, 0.5, 1e308, -0.0, float("nan"), float("inf"), "", "G0", "\x00", "é" * 99]
KEYS = ["embeddings", "genes", "k", "weights", "spread", "neighbours", "without", "pixels", "slide", "region", "x", ""]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("faults") / "store")


@pytest.fixture(scope="module")
def service(store: Path) -> Iterator[Served]:
    values: dict[str, Any] = {
        "encoder": {"name": "tiny"},
        "slides": [str(store)],
        "side": 112.0,
        "token": {"env": "TOKEN_OF_TEST"},
        "limits": {"deadline_s": 20.0, "body_bytes": 1 << 20},
        "run": {"replicas": 2, "cpus": 0.5},
    }
    with served(store, values, TOKEN_OF_TEST=TOKEN) as one:
        yield one


def structure(rng: np.random.Generator, depth: int = 0) -> Any:
    """Return a random value of JSON."""
    kind = rng.integers(8) if depth < 5 else 0
    if kind == 1:
        return [structure(rng, depth + 1) for _ in range(rng.integers(6))]
    if kind == 2:
        return {str(rng.choice(KEYS)): structure(rng, depth + 1) for _ in range(rng.integers(5))}
    return WORDS[rng.integers(len(WORDS))]


def altered(rng: np.random.Generator) -> Any:
    """Return a good question, one part of which is something else."""
    body: dict[str, Any] = json.loads(json.dumps(GOOD))
    key = str(rng.choice(KEYS))
    where = rng.integers(4)
    if where == 0:
        body["embeddings"][0][rng.integers(128)] = structure(rng)
    elif where == 1:
        body["embeddings"] = [*body["embeddings"][: rng.integers(3)], structure(rng)]
    else:
        body[key] = structure(rng)
    return body


def turned(rng: np.random.Generator, content: bytes) -> bytes:
    """Return bytes of which some are others, and which may end early."""
    found = bytearray(content)
    for place in rng.integers(0, max(1, len(found)), rng.integers(1, 9)):
        found[place : place + 1] = rng.bytes(1)
    return bytes(found[: rng.integers(len(found) + 1)]) if rng.integers(3) == 0 else bytes(found)


def fuzzed(rng: np.random.Generator) -> tuple[str, str, bytes, dict[str, str]]:
    """Return a request: method, path, body and headers."""
    kind, headers = rng.integers(6), {}
    if kind == 0:
        body = rng.bytes(int(rng.integers(2000)))
    elif kind == 1:
        body = json.dumps(structure(rng)).encode()
    elif kind in {2, 3}:
        body = json.dumps(altered(rng)).encode()
    else:
        body = turned(rng, json.dumps(GOOD).encode())
    if rng.integers(4) == 0:
        headers["content-type"] = [STREAM, "text/plain", "", "application/json; charset=\xff"][rng.integers(4)]
    if rng.integers(8) == 0:
        names = ["accept", "x-request-id", "serve-multiplexed-model-id", "x-request-timeout-seconds", "cookie"]
        headers[str(rng.choice(names))] = bytes(rng.integers(33, 255, 40, np.uint8)).decode("latin-1")
    path = "/v1/impute" + ["", "?k=5", "?genes=%ff%00", "?k=x&k=y"][rng.integers(4)]
    if rng.integers(20) == 0:
        path = "/" + "".join(f"%{byte:02x}" for byte in rng.bytes(int(rng.integers(60))))
    return str(rng.choice(["POST"] * 9 + ["PUT", "GET", "PATCH"])), path, body, headers


def test_ten_thousand_fuzzed_requests_each_get_a_sentence_and_the_service_lives(service: Served) -> None:
    first = service.client()
    before = first.impute(GOOD)
    assert before.status == 200
    replicas, held = service.processes("ServeReplica"), service.rss()
    seen: Counter[int] = Counter()
    strange: list[str] = []

    def send(seed: int) -> None:
        rng, client = np.random.default_rng(seed), service.client()
        for _ in range(FUZZED // CLIENTS):
            asked = fuzzed(rng)
            answer = client.ask(*asked)
            seen[answer.status] += 1
            told = answer.status == 200 or (answer.headers["content-type"] == "application/json" and answer.error)
            if answer.status not in FORESEEN or not told or b"Traceback" in answer.content:
                strange.append(f"{answer} to {asked}"[:2000])

    threads = [threading.Thread(target=send, args=(seed,)) for seed in range(CLIENTS)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert strange == [], "\n".join(strange[:5])
    assert seen.total() == FUZZED
    assert {200, 400, 404, 405, 415, 422} <= set(seen)
    assert service.processes("ServeReplica") == replicas  # none has died
    assert service.rss() - held < MORE_MEMORY
    after = first.impute(GOOD)
    assert (after.status, after.values) == (200, before.values)
    service.hang_up()


def test_a_replica_that_is_killed_fails_what_it_has_in_hand_and_nothing_else(service: Served) -> None:
    victim, *_ = service.processes("ServeReplica:raystp")
    stop, answers = threading.Event(), []

    def load() -> None:
        client: Client = service.client()
        while not stop.is_set():
            began = time.monotonic()
            answer = client.impute(GOOD)
            answers.append((began, answer.status, answer.content))

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
    failed = [(began - killed, status, content) for began, status, content in answers if status != 200]
    assert len(failed) <= len(threads)
    assert {status for _, status, _ in failed} <= {503}
    assert all(b"error" in content for _, _, content in failed)
    assert max([began for began, _, _ in failed], default=0) < 2
    assert sum(began > killed for began, status, _ in answers if status == 200) > 20
    until = time.monotonic() + 120
    while len(service.processes("ServeReplica:raystp")) < 2:  # it is started anew
        assert time.monotonic() < until
        time.sleep(0.5)
    assert service.client().impute(GOOD).status == 200
    service.hang_up()
