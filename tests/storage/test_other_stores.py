"""Google Cloud Storage and Azure: put-if-absent, ranges, versions and folders, as on S3."""

import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

from raystp.errors import StorageError
from raystp.storage import StoragePath
from raystp.storage.node_cache import NodeCache
from tests.storage.conftest import CANARY
from tests.storage.fake_stores import FakeStore, Stored, running

CONTENT = np.random.default_rng(5).bytes(100_000)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeStore]:
    with running() as store:
        yield store


@pytest.fixture(params=["gs", "az"])
def remote(request: pytest.FixtureRequest, server: FakeStore, monkeypatch: pytest.MonkeyPatch) -> StoragePath:
    """An empty folder."""
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", CANARY)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    server.objects.clear()
    server.requests.clear()
    return StoragePath.of(f"{request.param}://bucket/folder?scheme=http&endpoint_override=127.0.0.1:{server.port}")


def test_of_many_writers_one_writes(remote: StoragePath) -> None:
    file = remote / "commit"
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: file.write_new(f"{n}".encode()), range(8)))
    assert won.count(True) == 1
    assert file.read_bytes() == f"{won.index(True)}".encode()


def test_ranges_are_requested_by_range_and_version(remote: StoragePath, server: FakeStore) -> None:
    file = remote / "slide.svs"
    file.write_bytes(CONTENT)
    version = file.version()
    server.requests.clear()
    ranges = [(0, 10), (99_990, 10), (5, 50_000)]
    assert file.read_ranges(ranges, version=version) == [CONTENT[at : at + count] for at, count in ranges]
    wanted = {f'GET /bucket/folder/slide.svs bytes={at}-{at + count - 1} "{version}"' for at, count in ranges}
    assert set(server.requests) == wanted
    with pytest.raises(StorageError, match=r"slide.svs ends before byte 100010"):
        file.read_range(99_990, 20, version=version)


def test_a_replaced_object_is_not_read(remote: StoragePath) -> None:
    file = remote / "slide.svs"
    file.write_bytes(CONTENT)
    version = file.version()
    file.write_bytes(CONTENT[::-1])
    assert file.version() != version
    with pytest.raises(StorageError, match=r"slide.svs was replaced while it was read"):
        file.read_range(0, 10, version=version)


def test_a_folder_holds_what_was_written_until_it_is_removed(remote: StoragePath) -> None:
    table = pa.table({"a": [1, 2], "b": ["x", "y"]})
    (remote / "deep" / "table.parquet").write_table(table)
    (remote / "empty").write_bytes(b"")
    assert (remote.names(), (remote / "deep").names()) == (["deep", "empty"], ["table.parquet"])
    assert (remote / "deep" / "table.parquet").read_table(["b"]).equals(table.select(["b"]))
    assert (remote.is_folder(), (remote / "empty").exists(), (remote / "emp").exists()) == (True, True, False)
    assert ((remote / "empty").size(), (remote / "empty").read_bytes()) == (0, b"")
    remote.check_writable()
    (remote / "deep").remove()
    (remote / "empty").remove()
    (remote / "absent").remove()
    assert (remote.names(), remote.exists()) == ([], False)
    with pytest.raises(StorageError, match=r"cannot look up \S+://bucket/folder/empty: not found .404"):
        (remote / "empty").read_bytes()


def test_objects_that_stand_for_folders_are_not_files(remote: StoragePath, server: FakeStore) -> None:
    """Consoles write `folder/`; Azure with a hierarchical namespace lists `folder` itself, empty."""
    (remote / "a" / "b" / "file").write_bytes(b"content")
    (remote / "a" / "empty").write_bytes(b"")
    for key in ("/bucket/folder/", "/bucket/folder/a/", "/bucket/folder/a/b", "/bucket/folder/none/"):
        server.objects[key] = Stored(b"", {})
    assert remote.files() == ["a/b/file", "a/empty"]
    assert (remote / "a").files() == ["b/file", "empty"]
    assert (remote / "none").files() == []
    assert (remote.names(), (remote / "a").names()) == (["a", "none"], ["b", "empty"])


def test_a_large_object_is_uploaded_in_parts(remote: StoragePath, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = CONTENT * 200
    (remote / "large").write_bytes(content)
    cache = NodeCache(tmp_path_factory.mktemp("cache"), 1 << 30)
    with cache.fetch(remote / "large") as path:
        assert path.read_bytes() == content
    with (remote / "large").local() as path:
        assert path.read_bytes() == content


def test_an_azure_uri_without_an_account_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(StorageError, match=r"needs AZURE_STORAGE_ACCOUNT_NAME in the environment, or \?account_name="):
        StoragePath.of("az://container/file").read_bytes()


def test_no_secret_of_azure_is_printed(server: FakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", f"sv=2023-11-03&sig={CANARY}")
    query = f"?account_name=account&scheme=http&endpoint_override=127.0.0.1:{server.port}"
    file = StoragePath.of(f"az://container/absent{query}")
    for use in (file.version, file.read_bytes, file.read_table):
        with pytest.raises(StorageError, match="az://container/absent: not found") as caught:
            use()
        assert CANARY not in "".join(traceback.format_exception(caught.value))
