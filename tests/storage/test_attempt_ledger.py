"""The attempt ledger: work that crashed too often is refused, and finished work leaves no marker."""

from pathlib import Path

from raystp.storage import StoragePath
from raystp.storage.attempt_ledger import MAX_CRASHES, AttemptLedger


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
    assert ledger.path.names() == ["left"]
    ledger.clear()
    assert ledger.path.names() == []
