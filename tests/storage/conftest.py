"""An object store on this machine over HTTP: directly, and through a proxy that injects faults."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.fs as pafs
import pytest
from moto.server import ThreadedMotoServer

from raystp.storage import StoragePath
from raystp.storage.node_cache import NodeCache
from tests.storage.fault_proxy import Proxy, running

CONTENT = np.random.default_rng(2).bytes(10_000)
CANARY = "canary-in-the-mine"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": CANARY,
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="session")
def store_port() -> Iterator[int]:
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    _, port = moto.get_host_and_port()
    yield port
    moto.stop()


@pytest.fixture(scope="session")
def server(store_port: int) -> str:
    """The query of the store's URIs."""
    return f"?scheme=http&endpoint_override=127.0.0.1:{store_port}&region=us-east-1&allow_bucket_creation=true"


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StoragePath:
    """An empty folder in a bucket."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    fs, name = pafs.FileSystem.from_uri(f"s3://bucket{server}")
    fs.create_dir(name)
    return StoragePath.of(f"s3://bucket/{tmp_path.name}{server}")


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> StoragePath:
    """An empty folder: on this machine, and in an object store."""
    path: StoragePath = StoragePath.of(tmp_path) if request.param == "local" else request.getfixturevalue("bucket")
    return path


@pytest.fixture(scope="session")
def one_proxy(store_port: int) -> Iterator[Proxy]:
    with running(store_port) as proxy:
        yield proxy


@pytest.fixture
def proxy(one_proxy: Proxy) -> Proxy:
    """The proxy, without faults."""
    one_proxy.clear()
    return one_proxy


@pytest.fixture
def proxied(bucket: StoragePath, proxy: Proxy) -> StoragePath:
    """The same folder as `bucket`, through the proxy."""
    return StoragePath.of(bucket.uri.partition("?")[0] + proxy.query)


@pytest.fixture
def cache(tmp_path: Path) -> NodeCache:
    return NodeCache(tmp_path / "cache", 35_000)


def put(bucket: StoragePath, proxied: StoragePath, name: str, content: bytes = CONTENT) -> StoragePath:
    """Upload an object; return its path through the proxy."""
    (bucket / name).write_new(content)
    return proxied / name


@pytest.fixture
def slide(bucket: StoragePath, proxied: StoragePath) -> StoragePath:
    return put(bucket, proxied, "A1.svs")


def cached_files(cache: NodeCache) -> list[Path]:
    """Return all files in the cache, unfinished ones too."""
    return sorted((cache.folder / "files").iterdir())


def child(code: str, *words: str) -> subprocess.Popen[str]:
    """Start Python with `code` in its own process."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **ENVIRONMENT},
    )


def output_of(process: subprocess.Popen[str]) -> str:
    """Return the output of a child that exits with status 0."""
    message, _ = process.communicate(timeout=60)
    assert process.returncode == 0, message
    return message.strip()


FETCH = """
import hashlib, sys, pathlib
from raystp.storage import StoragePath
from raystp.storage.node_cache import NodeCache
remote, cache = StoragePath.of(sys.argv[1]), NodeCache(pathlib.Path(sys.argv[2]), 10**9)
print("ready", flush=True)
sys.stdin.readline()
with cache.fetch(remote) as path:
    print(hashlib.sha256(path.read_bytes()).hexdigest())
"""
"""Code of a child that fetches the object of its first argument into the cache of its second, after a line of input."""
