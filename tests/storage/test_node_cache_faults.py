"""Faults of the node cache: an incomplete download, or one that does not fit, is an error and leaves no file."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raystp.errors import StorageError
from raystp.storage import StoragePath
from raystp.storage.node_cache import NodeCache
from raystp.storage.retry import RetryPolicy
from tests.storage.conftest import CONTENT, ENVIRONMENT, FETCH, cached_files, child, output_of, put
from tests.storage.fault_proxy import Proxy

QUICK = RetryPolicy(stall_timeout_s=2.0, backoff_s=0.02)
LIMITED = """
import pathlib, resource, sys
from raystp.errors import StorageError
from raystp.storage import StoragePath
from raystp.storage.node_cache import NodeCache
sys.dont_write_bytecode = True  # the limit would leave half of a compiled module, which cannot be imported
if sys.argv[3] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    with NodeCache(pathlib.Path(sys.argv[2]), 10**9).fetch(StoragePath.of(sys.argv[1])):
        print("fetched")
except StorageError as error:
    print(error)
"""


def test_a_killed_download_leaves_no_file_that_is_read(
    bucket: StoragePath, proxied: StoragePath, proxy: Proxy, tmp_path: Path
) -> None:
    remote, other = put(bucket, proxied, "A1.svs", CONTENT * 100), put(bucket, proxied, "B2.svs")
    cache = NodeCache(tmp_path / "cache", 10**9)
    proxy.add("drip", 300_000)
    victim = child(FETCH.replace("sys.stdin.readline()", ""), remote.uri, str(cache.folder))
    until = time.monotonic() + 30
    while not proxy.count("GET") and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.3)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    (left,) = cached_files(cache)
    assert left.name.startswith(".aside-")
    proxy.clear()
    with cache.fetch(other) as path:
        assert path.read_bytes() == CONTENT
    assert left not in cached_files(cache)
    with cache.fetch(remote) as path:
        assert path.read_bytes() == CONTENT * 100
    assert len(cached_files(cache)) == 2


@pytest.mark.parametrize(
    "fault", [("short", 1, "GET"), ("flip", 7, "GET"), ("short", 1, "HEAD"), ("short", -1, "HEAD"), ("cut", 1, "GET")]
)
def test_an_incomplete_download_never_becomes_a_file(
    slide: StoragePath, proxy: Proxy, cache: NodeCache, fault: tuple[str, int, str]
) -> None:
    kind, at, method = fault
    proxy.add(kind, at, method=method)
    with pytest.raises(StorageError, match=r"/A1\.svs"), cache.fetch(slide, policy=QUICK):
        pass
    assert cached_files(cache) == []
    proxy.clear()
    with cache.fetch(slide) as path:
        assert path.read_bytes() == CONTENT


def test_a_silent_store_is_an_error_in_time(slide: StoragePath, proxy: Proxy, cache: NodeCache) -> None:
    proxy.add("silent")
    started = time.monotonic()
    with pytest.raises(StorageError, match=r"/A1\.svs"), cache.fetch(slide, policy=QUICK):
        pass
    assert time.monotonic() - started < 1.2 * QUICK.stall_timeout_s + 0.5
    assert cached_files(cache) == []


def test_a_disk_that_is_too_small_is_an_error_before_a_byte_is_fetched(
    slide: StoragePath, proxy: Proxy, cache: NodeCache
) -> None:
    proxy.add("short", -(1 << 60), method="HEAD")
    message = r"cannot keep s3://bucket/\S+/A1.svs in the cache \S+/cache: it needs 1,152,\S+ bytes, and \S+ are free; "
    with pytest.raises(StorageError, match=message), cache.fetch(slide):
        pass
    assert (cached_files(cache), proxy.count("GET")) == ([], 0)


def test_a_failed_disk_write_is_an_error_and_leaves_no_file(
    bucket: StoragePath, proxied: StoragePath, cache: NodeCache
) -> None:
    message = output_of(child(LIMITED, put(bucket, proxied, "A1.svs").uri, str(cache.folder), "limit"))
    assert "A1.svs (10,000 bytes) in the cache" in message
    assert "File too large; free some space there, or choose another folder" in message
    assert cached_files(cache) == []


@pytest.mark.skipif(not shutil.which("unshare"), reason="a separate disk needs unshare (util-linux)")
def test_a_full_disk_is_an_error_and_leaves_no_file(bucket: StoragePath, proxied: StoragePath, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = [
        "unshare",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs -o size=64k none "$1" && shift && "$@"; ls -A "$0"',
    ]
    remote = put(bucket, proxied, "A1.svs", CONTENT * 20)
    ran = subprocess.run(
        [*mount, str(disk / "files"), str(disk), sys.executable, "-c", LIMITED, remote.uri, str(disk), "disk"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **ENVIRONMENT},
    )
    if "unshare:" in ran.stderr or "mount:" in ran.stderr:
        pytest.skip(f"this machine cannot mount a separate disk: {ran.stderr.strip()}")
    assert f"in the cache {disk}: it needs 200,000 bytes, and " in ran.stdout
    assert ran.stdout.count("\n") == 1


def test_a_folder_that_is_not_writable_is_an_error(bucket: StoragePath, proxied: StoragePath, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    remote = put(bucket, proxied, "A1.svs")
    with (
        pytest.raises(StorageError, match=r"in the cache \S+/file/cache: Not a directory"),
        NodeCache(tmp_path / "file" / "cache", 1).fetch(remote),
    ):
        pass
