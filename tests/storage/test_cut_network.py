"""A store that cannot be reached for some seconds is tried again; one that never answered is an error soon."""

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from raystp.errors import StorageError
from raystp.storage import StoragePath
from raystp.storage.attempt_ledger import AttemptLedger
from tests.storage.conftest import CONTENT, ENVIRONMENT

AWAY_S = 8.0
"""Longer than the attempts of a store that answers with errors take."""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def _serve(port: int) -> ThreadedMotoServer:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    return server


class Away:
    """A store that can be taken off the network; its objects stay."""

    def __init__(self) -> None:
        self.port = _free_port()
        self.server = _serve(self.port)
        query = f"?scheme=http&endpoint_override=127.0.0.1:{self.port}&region=us-east-1&allow_bucket_creation=true"
        self.folder = StoragePath.of(f"s3://away/folder{query}")

    def leave(self) -> None:
        self.server.stop()

    def come_back(self) -> None:
        self.server = _serve(self.port)


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[Away]:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    store = Away()
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{store.port}", region_name="us-east-1")
    client.create_bucket(Bucket="away")
    yield store
    store.server.stop()


ACTIONS: dict[str, Callable[[StoragePath], object]] = {
    "read": lambda folder: (folder / "old").read_bytes(),
    "write": lambda folder: (folder / "new").write_bytes(b"new"),
    "put-if-absent": lambda folder: (folder / "new").write_new(b"new"),
    "look up": lambda folder: (folder / "old").is_file(),
    "list": lambda folder: folder.names(),
    "remove": lambda folder: (folder / "old").remove_file(),
    "remove all": lambda folder: folder.remove(),
}


def test_every_request_waits_for_a_store_that_is_away_for_some_seconds(away: Away) -> None:
    folders = {name: away.folder / name.replace(" ", "-") for name in ACTIONS}
    for folder in folders.values():
        (folder / "old").write_bytes(CONTENT)
    away.leave()
    with ThreadPoolExecutor(len(ACTIONS)) as threads:
        found = {name: threads.submit(ACTIONS[name], folder) for name, folder in folders.items()}
        time.sleep(AWAY_S)
        assert not any(one.done() for one in found.values())
        away.come_back()
        results = {name: one.result() for name, one in found.items()}
    assert (results["read"], results["put-if-absent"], results["look up"], results["list"]) == (
        CONTENT,
        True,
        True,
        ["old"],
    )
    assert folders["write"].names() == ["new", "old"]
    assert folders["remove"].names() == folders["remove all"].names() == []


def test_a_store_that_never_answered_is_an_error_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    query = f"?scheme=http&endpoint_override=127.0.0.1:{_free_port()}&region=us-east-1"
    started = time.monotonic()
    with pytest.raises(StorageError, match="the connection broke or timed out \\(Connect\\); gave up after 4 attempts"):
        StoragePath.of(f"s3://bucket/file{query}").read_bytes()
    assert time.monotonic() - started < 30  # not the stall timeout of 60 s


def test_a_marker_that_cannot_be_removed_fails_no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = AttemptLedger(StoragePath.of(tmp_path))
    assert not ledger.begin("unit")

    def refuse(_: StoragePath) -> None:
        msg = "cannot remove it"
        raise StorageError(msg)

    monkeypatch.setattr(StoragePath, "remove_file", refuse)
    ledger.end("unit")
    assert ledger.items() == {"unit"}
