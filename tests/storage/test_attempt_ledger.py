"""The ledger of attempts: what has ended too many processes is refused, what ended is forgotten."""

from pathlib import Path

from raystp.storage import StoragePath
from raystp.storage.attempt_ledger import MAX_CRASHES, AttemptLedger


def test_a_piece_is_refused_after_so_many_marks_and_by_the_name_of_the_last_host(tmp_path: Path) -> None:
    ledger = AttemptLedger(StoragePath.of(tmp_path / "attempts"))
    assert [ledger.begin("one") for _ in range(MAX_CRASHES)] == [""] * MAX_CRASHES
    assert ledger.begin("one") != ""
    assert ledger.begin("two") == ""


def test_what_has_ended_leaves_no_mark(tmp_path: Path) -> None:
    ledger = AttemptLedger(StoragePath.of(tmp_path / "attempts"))
    for _ in range(2 * MAX_CRASHES):
        assert ledger.begin("one") == ""
        ledger.end("one")


def test_marks_of_done_pieces_are_swept_and_all_can_be_forgotten(tmp_path: Path) -> None:
    ledger = AttemptLedger(StoragePath.of(tmp_path / "attempts"))
    for piece in ("done", "left"):
        ledger.begin(piece)
    ledger.remove_finished({"done", "other"})
    assert ledger.path.names() == ["left"]
    ledger.clear()
    assert ledger.path.names() == []
