"""Digests cover all of a file, ids of content its size and its ends."""

from pathlib import Path

from raystp.digests import content_id, digest
from raystp.storage import StoragePath


def test_the_digest_of_a_file_covers_its_whole_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    (tmp_path / "b").write_bytes(b"x" * 1_500_000 + b"y" + b"x" * 1_499_999)
    one, other = (digest(StoragePath.of(tmp_path / name)) for name in "ab")
    assert one != other
    assert content_id(StoragePath.of(tmp_path / "a")) == content_id(
        StoragePath.of(tmp_path / "b")
    )  # the documented limit


def test_a_content_id_changes_with_size_head_tail_and_names(tmp_path: Path) -> None:
    contents = {"a": b"1234567890", "b": b"12345678901", "c": b"x234567890", "d": b"123456789x", "e": b""}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    ids = {name: content_id(StoragePath.of(tmp_path / name), edge=3) for name in contents}
    whole = content_id(StoragePath.of(tmp_path), edge=3)
    assert len({*ids.values(), whole, content_id(StoragePath.of(tmp_path / "none"))}) == 7
    assert content_id(StoragePath.of(tmp_path / "none")) == "absent"
    (tmp_path / "a").rename(tmp_path / "A")
    assert content_id(StoragePath.of(tmp_path), edge=3) != whole
