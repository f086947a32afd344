"""The node cache: one download for all processes, and a limit of bytes besides the files in use."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from raystp.errors import StorageError
from raystp.storage import StoragePath
from raystp.storage.local_file import locked
from raystp.storage.node_cache import NodeCache
from tests.storage.conftest import CONTENT, ENVIRONMENT, FETCH, cached_files, put
from tests.storage.fault_proxy import Proxy


def test_a_fetched_object_is_read_again_without_a_download(
    bucket: StoragePath, proxied: StoragePath, proxy: Proxy, cache: NodeCache
) -> None:
    remote = put(bucket, proxied, "A1.SVS")
    for _ in range(3):
        with cache.fetch(remote) as path:
            assert path.read_bytes() == CONTENT
            assert path.suffix == ".svs"
    assert proxy.count("GET") == 1
    assert len(cached_files(cache)) == 1


def test_a_file_on_this_machine_is_its_own_path(tmp_path: Path, cache: NodeCache) -> None:
    (tmp_path / "slide").write_bytes(b"x")
    with cache.fetch(StoragePath.of(tmp_path / "slide")) as path:
        assert path == tmp_path / "slide"
    assert not cache.folder.exists()


def test_two_objects_of_one_name_and_two_versions_of_one_object_are_kept_apart(
    bucket: StoragePath, proxied: StoragePath, cache: NodeCache
) -> None:
    one, two = put(bucket / "a", proxied / "a", "A1.svs", b"one"), put(bucket / "b", proxied / "b", "A1.svs", b"two")
    with cache.fetch(one) as first, cache.fetch(two) as second:
        assert (first.read_bytes(), second.read_bytes()) == (b"one", b"two")
        (bucket / "a" / "A1.svs").write_bytes(b"new")
        with cache.fetch(one) as third:
            assert (third.read_bytes(), first.read_bytes()) == (b"new", b"one")


def test_a_file_of_the_wrong_size_is_fetched_again(bucket: StoragePath, proxied: StoragePath, cache: NodeCache) -> None:
    remote = put(bucket, proxied, "A1.svs")
    with cache.fetch(remote) as path:
        pass
    path.write_bytes(CONTENT[:-1])
    with cache.fetch(remote) as path:
        assert path.read_bytes() == CONTENT


def test_threads_and_processes_share_one_download(
    bucket: StoragePath, proxied: StoragePath, proxy: Proxy, cache: NodeCache
) -> None:
    remote = put(bucket, proxied, "A1.svs")
    proxy.latency_s = 0.2
    fetchers = [
        subprocess.Popen(
            [sys.executable, "-c", FETCH, remote.uri, str(cache.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **ENVIRONMENT},
        )
        for _ in range(2)
    ]
    for fetcher in fetchers:
        assert fetcher.stdout is not None
        assert fetcher.stdout.readline() == "ready\n"
    seen: list[bytes] = []

    def read() -> None:
        with cache.fetch(remote) as path:
            seen.append(path.read_bytes())

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    message = [fetcher.communicate("\n", timeout=60)[0].strip() for fetcher in fetchers]
    for thread in threads:
        thread.join()
    assert proxy.count("GET") == 1
    assert seen == [CONTENT] * 3
    assert len(set(message)) == 1
    assert len(message[0]) == 64


def test_a_process_that_waited_for_a_download_does_not_repeat_it(
    slide: StoragePath, proxy: Proxy, cache: NodeCache
) -> None:
    with cache.fetch(slide) as path:
        pass
    path.unlink()

    def read() -> None:
        with cache.fetch(slide):
            pass

    threads = [threading.Thread(target=read) for _ in range(3)]
    with locked(cache.folder / "locks" / path.stem, exclusive=False):  # all find it absent, and wait to be alone
        for thread in threads:
            thread.start()
        time.sleep(0.5)
    for thread in threads:
        thread.join()
    assert proxy.count("GET") == 2


def test_the_least_recently_used_is_removed_first_and_the_limit_holds(
    bucket: StoragePath, proxied: StoragePath, proxy: Proxy, cache: NodeCache
) -> None:
    remotes = [put(bucket, proxied, f"{n}.svs", CONTENT + bytes([n])) for n in range(5)]
    for remote in [*remotes[:3], remotes[0], *remotes[3:]]:
        with cache.fetch(remote):
            assert sum(path.stat().st_size for path in cached_files(cache)) <= cache.max_bytes
    before = proxy.count("GET")
    with cache.fetch(remotes[0]), cache.fetch(remotes[3]), cache.fetch(remotes[4]):
        assert proxy.count("GET") == before
    with cache.fetch(remotes[1]):
        assert proxy.count("GET") == before + 1
    assert len(list((cache.folder / "locks").iterdir())) == len(cached_files(cache)) == 3


def test_a_file_in_use_is_kept_and_the_limit_holds_again_after_it(
    bucket: StoragePath, proxied: StoragePath, cache: NodeCache
) -> None:
    remotes = [put(bucket, proxied, f"{n}.svs", CONTENT + bytes([n])) for n in range(5)]
    with contextlib.ExitStack() as stack:
        paths = [stack.enter_context(cache.fetch(remote)) for remote in remotes]
        assert [path.read_bytes()[-1] for path in paths] == list(range(5))
    assert sum(path.stat().st_size for path in cached_files(cache)) <= cache.max_bytes


def test_many_threads_over_a_small_cache_read_whole_files(
    bucket: StoragePath, proxied: StoragePath, cache: NodeCache
) -> None:
    remotes = [put(bucket, proxied, f"{n}.svs", CONTENT + bytes([n])) for n in range(6)]
    wrong: list[object] = []

    def read(seed: int) -> None:
        for n in np.random.default_rng(seed).integers(0, 6, 8).tolist():
            try:
                with cache.fetch(remotes[n]) as path:
                    if path.read_bytes() != CONTENT + bytes([n]):
                        wrong.append(n)
            except (StorageError, OSError) as error:
                wrong.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sum(path.stat().st_size for path in cached_files(cache)) <= cache.max_bytes
