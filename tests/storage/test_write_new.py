"""Put-if-absent: exactly one of many threads and processes writes, with any response of the store."""

import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raystp.errors import StorageError
from raystp.storage import StoragePath
from raystp.storage.retry import RetryPolicy
from tests.storage.conftest import child, output_of
from tests.storage.fault_proxy import Proxy

QUICK = RetryPolicy(stall_timeout_s=4.0, backoff_s=0.02)
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
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> StoragePath:
    """An empty folder; the proxy makes moto's put-if-absent atomic, as that of S3 is."""
    remote: StoragePath = StoragePath.of(tmp_path) if request.param == "local" else request.getfixturevalue("proxied")
    return remote


def test_of_many_threads_one_writes(remote: StoragePath) -> None:
    file = remote / "deep" / "commit"
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda n: file.write_new(f"{n}".encode()), range(16)))
    assert won.count(True) == 1
    assert file.read_bytes() == f"{won.index(True)}".encode()
    assert (remote / "deep").names() == ["commit"]


def test_of_many_processes_one_writes_each_key(remote: StoragePath) -> None:

    start = str(time.time() + 2.5)
    writers = [child(RACE, remote.uri, f"w{n}", start) for n in range(3)]
    won = [line.split() for writer in writers for line in output_of(writer).splitlines()]
    assert Counter(key for key, _ in won) == {str(key): 1 for key in range(KEYS)}
    for key, who in won:
        assert (remote / f"commit-{key}").read_bytes() == who.encode()


def test_an_existing_file_is_kept(remote: StoragePath) -> None:
    file = remote / "commit"
    file.write_bytes(b"old")
    assert not file.write_new(b"new")
    assert file.read_bytes() == b"old"
    file.remove()
    assert file.write_new(b"")
    assert file.read_bytes() == b""


def test_no_temporary_file_is_left(tmp_path: Path) -> None:
    file = StoragePath.of(tmp_path / "commit")
    assert [file.write_new(b"1"), file.write_new(b"2")] == [True, False]
    assert os.listdir(tmp_path) == ["commit"]  # noqa: PTH208 -- names() leaves out what is being written


def test_a_path_below_a_plain_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match=r"cannot write .*/file/commit: "):
        StoragePath.of(tmp_path / "file" / "commit").write_new(b"x")


@pytest.mark.parametrize("status", [500, 503])
def test_a_write_with_a_lost_response_is_recognised_as_our_own(proxied: StoragePath, proxy: Proxy, status: int) -> None:
    proxy.add("lost", status, method="PUT", times=2)
    assert (proxied / "commit").write_new(b"x", policy=QUICK)
    assert proxy.count("PUT") == 3


def test_a_write_after_anothers_with_a_lost_response_is_not_our_own(proxied: StoragePath, proxy: Proxy) -> None:
    (proxied / "commit").write_bytes(b"x")
    proxy.add("lost", 500, method="PUT", times=1)
    assert not (proxied / "commit").write_new(b"x", policy=QUICK)


def test_a_conflict_of_two_writes_is_retried(proxied: StoragePath, proxy: Proxy) -> None:
    proxy.add("status", 409, method="PUT", times=2, code="ConditionalRequestConflict")
    assert (proxied / "commit").write_new(b"x", policy=QUICK)
    (proxied / "other").write_bytes(b"old")
    proxy.add("status", 409, method="PUT", times=1, code="ConditionalRequestConflict")
    assert not (proxied / "other").write_new(b"new", policy=QUICK)


def test_a_store_that_is_down_is_an_error_and_the_write_works_when_it_is_up(proxied: StoragePath, proxy: Proxy) -> None:
    proxy.add("status", 503, method="PUT", code="SlowDown")
    message = r"cannot write s3://bucket/\S+/commit: the store answered 503 SlowDown; gave up after 4 attempts"
    with pytest.raises(StorageError, match=message):
        (proxied / "commit").write_new(b"x", policy=QUICK)
    assert proxy.count("PUT") == 4
    proxy.clear()
    assert not (proxied / "commit").exists()
    assert (proxied / "commit").write_new(b"x")


def test_a_refused_write_is_not_retried(proxied: StoragePath, proxy: Proxy) -> None:
    proxy.add("status", 403, method="PUT", code="AccessDenied")
    with pytest.raises(StorageError, match=r"cannot write .*/commit: the store refuses it \(403 AccessDenied\)"):
        (proxied / "commit").write_new(b"x", policy=QUICK)
    assert proxy.count("PUT") == 1


def test_an_absent_bucket_is_reported(bucket: StoragePath) -> None:
    remote = StoragePath.of(bucket.uri.replace("//bucket/", "//none/")) / "commit"
    with pytest.raises(StorageError, match=r"cannot write s3://none/\S*/commit: .*404 NoSuchBucket"):
        remote.write_new(b"x")


def test_an_unknown_kind_of_store_is_refused() -> None:
    with pytest.raises(
        StorageError,
        match="ftp://b/k is in no known store: give a path, or a URI that starts with s3://, gs:// or az://",
    ):
        StoragePath.of("ftp://b/k").write_new(b"x")
