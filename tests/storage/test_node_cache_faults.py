"""The node cache on a bad day: what does not come whole, or does not fit, leaves a sentence and no file."""

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
from tests.storage.conftest import CONTENT, ENVIRONMENT, FETCH, child, kept, printed, put
from tests.storage.fault_proxy import Proxy

SOON = RetryPolicy(stall_timeout_s=2.0, backoff_s=0.02)
CRAMPED = """
import pathlib, resource, sys
from raystp.errors import StorageError
from raystp.storage import StoragePath
from raystp.storage.node_cache import NodeCache
if sys.argv[3] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    with NodeCache(pathlib.Path(sys.argv[2]), 10**9).fetch(StoragePath.of(sys.argv[1])):
        print("fetched")
except StorageError as error:
    print(error)
"""


def test_a_killed_download_leaves_nothing_that_is_read(
    bucket: StoragePath, far: StoragePath, proxy: Proxy, tmp_path: Path
) -> None:
    place, other = put(bucket, far, "A1.svs", CONTENT * 100), put(bucket, far, "B2.svs")
    cache = NodeCache(tmp_path / "cache", 10**9)
    proxy.add("drip", 300_000)
    victim = child(FETCH.replace("sys.stdin.readline()", ""), place.uri, str(cache.folder))
    until = time.monotonic() + 30
    while not proxy.count("GET") and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.3)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    (left,) = kept(cache)
    assert left.name.startswith(".aside-")
    proxy.clear()
    with cache.fetch(other) as path:
        assert path.read_bytes() == CONTENT
    assert left not in kept(cache)
    with cache.fetch(place) as path:
        assert path.read_bytes() == CONTENT * 100
    assert len(kept(cache)) == 2


@pytest.mark.parametrize(
    "fault", [("short", 1, "GET"), ("flip", 7, "GET"), ("short", 1, "HEAD"), ("short", -1, "HEAD"), ("cut", 1, "GET")]
)
def test_an_object_that_does_not_come_whole_never_becomes_a_file(
    slide: StoragePath, proxy: Proxy, cache: NodeCache, fault: tuple[str, int, str]
) -> None:
    kind, at, method = fault
    proxy.add(kind, at, method=method)
    with pytest.raises(StorageError, match=r"/A1\.svs"), cache.fetch(slide, policy=SOON):
        pass
    assert kept(cache) == []
    proxy.clear()
    with cache.fetch(slide) as path:
        assert path.read_bytes() == CONTENT


def test_a_store_that_never_answers_is_given_up_in_time(slide: StoragePath, proxy: Proxy, cache: NodeCache) -> None:
    proxy.add("silent")
    started = time.monotonic()
    with pytest.raises(StorageError, match=r"/A1\.svs"), cache.fetch(slide, policy=SOON):
        pass
    assert time.monotonic() - started < 1.2 * SOON.stall_timeout_s + 0.5
    assert kept(cache) == []


def test_a_disk_that_is_too_small_is_named_before_a_byte_is_fetched(
    slide: StoragePath, proxy: Proxy, cache: NodeCache
) -> None:
    proxy.add("short", -(1 << 60), method="HEAD")
    said = r"cannot keep s3://bucket/\S+/A1.svs in the cache \S+/cache: it needs 1,152,\S+ bytes, and \S+ are free; "
    with pytest.raises(StorageError, match=said), cache.fetch(slide):
        pass
    assert (kept(cache), proxy.count("GET")) == ([], 0)


def test_a_file_that_the_disk_will_not_take_is_named_and_gone(
    bucket: StoragePath, far: StoragePath, cache: NodeCache
) -> None:
    said = printed(child(CRAMPED, put(bucket, far, "A1.svs").uri, str(cache.folder), "limit"))
    assert "A1.svs (10,000 bytes) in the cache" in said
    assert "File too large; free some space there, or choose another folder" in said
    assert kept(cache) == []


@pytest.mark.skipif(not shutil.which("unshare"), reason="a disk of one's own needs unshare (util-linux)")
def test_a_full_disk_is_named_and_what_there_was_is_gone(bucket: StoragePath, far: StoragePath, tmp_path: Path) -> None:
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
    place = put(bucket, far, "A1.svs", CONTENT * 20)
    ran = subprocess.run(
        [*mount, str(disk / "files"), str(disk), sys.executable, "-c", CRAMPED, place.uri, str(disk), "disk"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **ENVIRONMENT},
    )
    if "unshare:" in ran.stderr or "mount:" in ran.stderr:
        pytest.skip(f"this machine lends no disk of one's own: {ran.stderr.strip()}")
    assert f"in the cache {disk}: it needs 200,000 bytes, and " in ran.stdout
    assert ran.stdout.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_named(bucket: StoragePath, far: StoragePath, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    place = put(bucket, far, "A1.svs")
    with (
        pytest.raises(StorageError, match=r"in the cache \S+/file/cache: Not a directory"),
        NodeCache(tmp_path / "file" / "cache", 1).fetch(place),
    ):
        pass
