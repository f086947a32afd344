"""A download is one version of the object, whole, or an error."""

import hashlib
import zlib
from pathlib import Path

import boto3
import numpy as np
import pytest

from raystp.errors import StorageError
from raystp.storage import StoragePath, objects
from raystp.storage.objects import download, file_digest
from raystp.storage.retry import RetryPolicy
from tests.storage.fault_proxy import Proxy

QUICK = RetryPolicy(stall_timeout_s=2.0, backoff_s=0.02)
CONTENT = np.random.default_rng(1).bytes(100_000)


@pytest.fixture
def slide(bucket: StoragePath, proxied: StoragePath) -> StoragePath:
    """An object uploaded in one part, so that its ETag is its MD5."""
    assert (bucket / "slide.svs").write_new(CONTENT)
    return proxied / "slide.svs"


def fetch(remote: StoragePath, path: Path) -> bytes:
    stored = remote.stored_object(QUICK)
    path.touch()
    download(stored, stored.info(), path)
    return path.read_bytes()


@pytest.mark.parametrize("part", [100_000, 99_999, 30_000])
def test_a_download_of_any_parts_is_the_object(
    slide: StoragePath, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, part: int
) -> None:
    monkeypatch.setattr(objects, "PART_BYTES", part)
    assert fetch(slide, tmp_path / "slide") == CONTENT
    assert proxy.count("GET") == -(-len(CONTENT) // part)


def test_an_empty_object_is_an_empty_file(proxied: StoragePath, tmp_path: Path) -> None:
    (proxied / "empty").write_new(b"")
    assert fetch(proxied / "empty", tmp_path / "empty") == b""


def checksum(remote: StoragePath) -> tuple[str, str] | None:
    return remote.stored_object().checksum(remote.version())


def test_a_flipped_byte_is_found_by_the_etag(slide: StoragePath, proxy: Proxy, tmp_path: Path) -> None:
    assert checksum(slide) == ("md5", hashlib.md5(CONTENT).hexdigest())
    proxy.add("flip", 500)
    with pytest.raises(StorageError, match=r"the download of s3://bucket/\S+/slide.svs is damaged: its md5 differs"):
        fetch(slide, tmp_path / "slide")


def test_a_flipped_byte_is_found_by_a_stored_checksum(
    slide: StoragePath, bucket: StoragePath, proxy: Proxy, tmp_path: Path
) -> None:
    stored = bucket.stored_object()
    client = boto3.client("s3", endpoint_url=stored.identity.partition("/bucket")[0], region_name="us-east-1")
    key = f"{stored.identity.partition('/bucket/')[2]}/slide.svs"
    client.put_object(Bucket="bucket", Key=key, Body=CONTENT, ChecksumAlgorithm="CRC32")
    client.close()
    assert checksum(slide) == ("crc32", f"{zlib.crc32(CONTENT):08x}")
    assert fetch(slide, tmp_path / "slide") == CONTENT
    proxy.add("flip", 500)
    with pytest.raises(StorageError, match=r"is damaged: its crc32 differs"):
        fetch(slide, tmp_path / "slide")


@pytest.mark.parametrize("kind", ["short", "cut", "reset"])
def test_a_body_that_is_always_too_short_is_an_error(
    slide: StoragePath, proxy: Proxy, tmp_path: Path, kind: str
) -> None:
    proxy.add(kind, 1)
    with pytest.raises(StorageError, match=r"/slide\.svs"):
        fetch(slide, tmp_path / "slide")


@pytest.mark.parametrize("by", [1, -1])
def test_an_object_whose_reported_length_is_wrong_is_an_error(
    slide: StoragePath, proxy: Proxy, tmp_path: Path, by: int
) -> None:
    proxy.add("short", by, method="HEAD")
    with pytest.raises(StorageError, match=r"/slide\.svs"):
        fetch(slide, tmp_path / "slide")


def test_a_files_digest_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT * 30)
    assert file_digest(path, "crc32") == f"{zlib.crc32(CONTENT * 30):08x}"
    for name in ("md5", "sha1", "sha256"):
        assert file_digest(path, name) == hashlib.new(name, CONTENT * 30).hexdigest()
