"""An s3:// URI is read as pyarrow reads it, and shows none of its secrets."""

import pyarrow.fs as pafs
import pytest

from raystp.errors import StorageError
from raystp.storage.s3.address import read_address
from tests.storage.conftest import CANARY

READ = [
    "s3://b/k?region=u",
    "s3://b/a/b%20c/d.svs?region=u&scheme=http",
    "s3://b/a/b/?region=u",
    "s3://b/a+b?region=u",
    "s3://k%2B:s%2Fx+y@b/a?endpoint_override=127.0.0.1:1&scheme=http&region=u",
    "s3://k@b/a?region=u",
    "s3://b/k?endpoint_override=127.0.0.1%3A1&region=x&region=y",
    "s3://b:80/k?region=u",
    "s3://b/k?region=u&tls_ca_file_path=/ca.pem&allow_bucket_creation=true",
]
"""With a region or an endpoint: without, pyarrow asks the network where the bucket is."""


@pytest.mark.parametrize("uri", READ)
def test_bucket_key_and_door_are_pyarrows(uri: str) -> None:
    address = read_address(uri, "it")
    fs, path = pafs.FileSystem.from_uri(uri)
    (theirs,) = fs.__reduce__()[1]
    assert f"{address.bucket}/{address.key}" == path
    door = address.door
    assert (door.access_key, door.secret_key) == (theirs["access_key"], theirs["secret_key"])
    assert (door.region or "", door.verify or "") == (theirs["region"], theirs["tls_ca_file_path"])
    endpoint = theirs["endpoint_override"]
    assert (door.endpoint or "") == (f"{theirs['scheme']}://{endpoint}" if endpoint else "")


@pytest.mark.parametrize("uri", ["s3://b/k k", "s3://b/k?bogus=1", "s3://b/ä", "s3://b/a%zz"])
def test_what_pyarrow_refuses_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="URI"):
        pafs.FileSystem.from_uri(uri)
    with pytest.raises(StorageError, match="the URI of it cannot be read"):
        read_address(uri, "it")


@pytest.mark.parametrize("uri", ["s3://b", "s3://b/", "s3:///k"])
def test_a_uri_without_bucket_or_key_names_no_object(uri: str) -> None:
    with pytest.raises(StorageError, match="it names no object"):
        read_address(uri, "it")


def test_certificates_are_checked_unless_one_says_not() -> None:
    def verify(query: str) -> object:
        return read_address(f"s3://b/k?{query}", "it").door.verify

    assert verify("tls_verify_certificates=false") is False
    assert verify("tls_verify_certificates=true") is None
    assert verify("tls_verify_certificates=true&tls_ca_dir_path=/certs") == "/certs"


def test_an_address_prints_without_its_secrets() -> None:
    address = read_address(f"s3://{CANARY}:{CANARY}@b/k?region=u", "it")
    assert address.door.secret_key == CANARY
    assert CANARY not in f"{address} {address!r} {address.door}"


@pytest.mark.parametrize("uri", [f"s3://b/k?{CANARY}=1", f"s3://a:{CANARY}@b/k k", f"s3://a:{CANARY}@b"])
def test_a_refusal_shows_no_secret(uri: str) -> None:
    with pytest.raises(StorageError) as caught:
        read_address(uri, "it")
    assert CANARY not in str(caught.value)
