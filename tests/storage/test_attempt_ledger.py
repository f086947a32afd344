"""The attempt ledger: work that crashed too often is refused, and finished work leaves no marker."""

import socket
from pathlib import Path

import pytest

from raystp.storage import StoragePath
from raystp.storage.attempt_ledger import MAX_CRASHES, AttemptLedger
from tests.storage.fault_proxy import Proxy


def test_work_is_refused_after_too_many_crashes_with_the_last_host(tmp_path: Path) -> None:
    ledger = AttemptLedger(StoragePath.of(tmp_path / "attempts"))
    assert [ledger.begin("one") for _ in range(MAX_CRASHES)] == [""] * MAX_CRASHES
    assert ledger.begin("one") != ""
    assert ledger.begin("two") == ""


def test_finished_work_leaves_no_marker(tmp_path: Path) -> None:
    ledger = AttemptLedger(StoragePath.of(tmp_path / "attempts"))
    for _ in range(2 * MAX_CRASHES):
        assert ledger.begin("one") == ""
        ledger.end("one")


def test_markers_of_finished_work_are_removed_and_all_can_be_cleared(tmp_path: Path) -> None:
    ledger = AttemptLedger(StoragePath.of(tmp_path / "attempts"))
    for item in ("done", "left"):
        ledger.begin(item)
    ledger.remove_finished({"done", "other"})
    assert ledger.items() == {"left"}
    ledger.clear()
    assert ledger.path.names() == []


def test_attempts_of_one_item_in_many_processes_are_all_counted(tmp_path: Path) -> None:
    ledgers = [AttemptLedger(StoragePath.of(tmp_path / "attempts")) for _ in range(MAX_CRASHES)]
    assert [ledger.begin("one") for ledger in ledgers] == [""] * MAX_CRASHES
    assert ledgers[0].begin("one") != ""
    ledgers[1].end("one")
    assert [ledger.begin("one") for ledger in ledgers] == [""] * MAX_CRASHES


@pytest.mark.parametrize("content", [b"", b"[]", b'{"host": 1', b'{"attempts": "x", "host": "a"}'])
def test_a_damaged_marker_is_one_crash(content: bytes, tmp_path: Path) -> None:
    ledger = AttemptLedger(StoragePath.of(tmp_path / "attempts"))
    (ledger.path / "one.json").write_bytes(content)
    assert [ledger.begin("one") for _ in range(MAX_CRASHES - 1)] == [""] * (MAX_CRASHES - 1)
    assert ledger.begin("one") == socket.gethostname()


def test_an_attempt_without_a_crash_costs_two_requests(proxied: StoragePath, proxy: Proxy) -> None:
    ledger = AttemptLedger(proxied / "attempts")
    ledger.begin("one")
    assert (ledger.path / "one.json").is_file()
    proxy.requests.clear()
    ledger.begin("two")
    ledger.end("two")
    assert [request.method for request in proxy.requests] == ["PUT", "POST"]
    assert not (ledger.path / "two.json").is_file()
    ledger.end("two")
