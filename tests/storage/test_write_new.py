"""Writing where nothing is yet: of many threads and processes exactly one is told so, whatever the store answers."""

import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raystp.errors import StorageError
from raystp.storage import StoragePath
from raystp.storage.retry import RetryPolicy
from tests.storage.conftest import child, printed
from tests.storage.fault_proxy import Proxy

SOON = RetryPolicy(stall_timeout_s=4.0, backoff_s=0.02)
KEYS = 8
RACE = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from raystp.storage import StoragePath
folder, who, start = StoragePath.of(sys.argv[1]), sys.argv[2], float(sys.argv[3])
time.sleep(max(0.0, start - time.time()))
def write(one):
    key, thread = one
    return (folder / f"commit-{key}").write_new(f"{who}-{thread}".encode())
with ThreadPoolExecutor(4) as pool:
    for (key, thread), won in [(one, pool.submit(write, one)) for one in [(k, t) for k in range(8) for t in range(4)]]:
        if won.result():
            print(key, f"{who}-{thread}")
"""


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> StoragePath:
    """An empty folder; the store's lets one write through at a time, as S3 does."""
    place: StoragePath = StoragePath.of(tmp_path) if request.param == "local" else request.getfixturevalue("far")
    return place


def test_of_many_threads_one_writes(place: StoragePath) -> None:
    file = place / "deep" / "commit"
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda n: file.write_new(f"{n}".encode()), range(16)))
    assert won.count(True) == 1
    assert file.read_bytes() == f"{won.index(True)}".encode()
    assert (place / "deep").names() == ["commit"]


def test_of_many_processes_one_writes_each_key(place: StoragePath) -> None:

    start = str(time.time() + 2.5)
    writers = [child(RACE, place.uri, f"w{n}", start) for n in range(3)]
    won = [line.split() for writer in writers for line in printed(writer).splitlines()]
    assert Counter(key for key, _ in won) == {str(key): 1 for key in range(KEYS)}
    for key, who in won:
        assert (place / f"commit-{key}").read_bytes() == who.encode()


def test_what_is_there_stays(place: StoragePath) -> None:
    file = place / "commit"
    file.write_bytes(b"old")
    assert not file.write_new(b"new")
    assert file.read_bytes() == b"old"
    file.remove()
    assert file.write_new(b"")
    assert file.read_bytes() == b""


def test_nothing_is_left_beside_a_local_file(tmp_path: Path) -> None:
    file = StoragePath.of(tmp_path / "commit")
    assert [file.write_new(b"1"), file.write_new(b"2")] == [True, False]
    assert os.listdir(tmp_path) == ["commit"]  # noqa: PTH208 -- names() leaves out what is being written


def test_below_a_plain_file_nothing_is_written_and_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match=r"cannot write .*/file/commit: "):
        StoragePath.of(tmp_path / "file" / "commit").write_new(b"x")


@pytest.mark.parametrize("status", [500, 503])
def test_a_write_whose_answer_was_lost_is_still_known_as_ones_own(far: StoragePath, proxy: Proxy, status: int) -> None:
    proxy.add("lost", status, method="PUT", times=2)
    assert (far / "commit").write_new(b"x", policy=SOON)
    assert proxy.count("PUT") == 3


def test_a_write_that_was_lost_after_anothers_is_not_ones_own(far: StoragePath, proxy: Proxy) -> None:
    (far / "commit").write_bytes(b"x")
    proxy.add("lost", 500, method="PUT", times=1)
    assert not (far / "commit").write_new(b"x", policy=SOON)


def test_a_refusal_of_two_writes_at_once_is_asked_again(far: StoragePath, proxy: Proxy) -> None:
    proxy.add("status", 409, method="PUT", times=2, says="ConditionalRequestConflict")
    assert (far / "commit").write_new(b"x", policy=SOON)
    (far / "other").write_bytes(b"old")
    proxy.add("status", 409, method="PUT", times=1, says="ConditionalRequestConflict")
    assert not (far / "other").write_new(b"new", policy=SOON)


def test_a_store_that_is_down_ends_in_a_sentence_and_the_write_goes_on_when_it_is_up(
    far: StoragePath, proxy: Proxy
) -> None:
    proxy.add("status", 503, method="PUT", says="SlowDown")
    said = r"cannot write s3://bucket/\S+/commit: the store answered 503 SlowDown; gave up after 4 attempts"
    with pytest.raises(StorageError, match=said):
        (far / "commit").write_new(b"x", policy=SOON)
    assert proxy.count("PUT") == 4
    proxy.clear()
    assert not (far / "commit").exists()
    assert (far / "commit").write_new(b"x")


def test_a_refused_write_is_asked_once(far: StoragePath, proxy: Proxy) -> None:
    proxy.add("status", 403, method="PUT", says="AccessDenied")
    with pytest.raises(StorageError, match=r"cannot write .*/commit: the store refuses it \(403 AccessDenied\)"):
        (far / "commit").write_new(b"x", policy=SOON)
    assert proxy.count("PUT") == 1


def test_a_bucket_that_is_not_there_is_named(bucket: StoragePath) -> None:
    place = StoragePath.of(bucket.uri.replace("//bucket/", "//none/")) / "commit"
    with pytest.raises(StorageError, match=r"cannot write s3://none/\S*/commit: .*404 NoSuchBucket"):
        place.write_new(b"x")


def test_another_kind_of_store_is_refused_in_a_sentence() -> None:
    with pytest.raises(
        StorageError,
        match="ftp://b/k is in no known store: give a path, or a URI that starts with s3://, gs:// or az://",
    ):
        StoragePath.of("ftp://b/k").write_new(b"x")
