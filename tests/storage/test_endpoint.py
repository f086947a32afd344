"""An s3:// URI is parsed as pyarrow parses it, and none of its secrets are printed."""

import pyarrow.fs as pafs
import pytest

from raystp.errors import StorageError
from raystp.storage.endpoint import parse_uri
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
"""With a region or an endpoint: without them pyarrow requests the bucket's region from AWS."""


@pytest.mark.parametrize("uri", READ)
def test_bucket_key_and_endpoint_are_pyarrows(uri: str) -> None:
    address = parse_uri(uri, "it")
    fs, path = pafs.FileSystem.from_uri(uri)
    (theirs,) = fs.__reduce__()[1]
    assert f"{address.bucket}/{address.key}" == path
    endpoint = address.endpoint
    assert (endpoint.access_key, endpoint.secret_key) == (theirs["access_key"], theirs["secret_key"])
    assert (endpoint.region or "", endpoint.verify or "") == (theirs["region"], theirs["tls_ca_file_path"])
    server = theirs["endpoint_override"]
    assert (endpoint.url or "") == (f"{theirs['scheme']}://{server}" if server else "")


@pytest.mark.parametrize("uri", ["s3://b/k k", "s3://b/k?bogus=1", "s3://b/ä", "s3://b/a%zz"])
def test_what_pyarrow_refuses_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="URI"):
        pafs.FileSystem.from_uri(uri)
    with pytest.raises(StorageError, match=r"the URI of it is not valid: its query may have .*region"):
        parse_uri(uri, "it")


@pytest.mark.parametrize("uri", ["s3:///k", "gs://b/a//k", "s3://b/a/../k"])
def test_a_uri_without_a_bucket_or_with_an_empty_name_is_refused(uri: str) -> None:
    with pytest.raises(StorageError, match="it is not the URI of an object: it needs a bucket and a key"):
        parse_uri(uri, "it")


def test_certificates_are_checked_unless_the_uri_disables_it() -> None:
    def verify(query: str) -> object:
        return parse_uri(f"s3://b/k?{query}", "it").endpoint.verify

    assert verify("tls_verify_certificates=false") is False
    assert verify("tls_verify_certificates=true") is None
    assert verify("tls_verify_certificates=true&tls_ca_dir_path=/certs") == "/certs"


@pytest.mark.parametrize(
    ("uri", "store", "url", "account"),
    [
        ("gs://b/k", "gs", None, None),
        ("gcs://b/k?endpoint_override=127.0.0.1:1&scheme=http", "gs", "http://127.0.0.1:1", None),
        ("az://b/k?account_name=acc", "az", None, "acc"),
    ],
)
def test_other_stores_have_their_own_settings(uri: str, store: str, url: str | None, account: str | None) -> None:
    address = parse_uri(uri, "it")
    endpoint = address.endpoint
    assert (endpoint.store, endpoint.url, endpoint.account) == (store, url, account)
    assert (address.bucket, address.key) == ("b", "k")


@pytest.mark.parametrize("uri", ["gs://b/k?region=u", "az://b/k?region=u", "s3://b/k?account_name=a"])
def test_a_setting_of_another_store_is_refused(uri: str) -> None:
    with pytest.raises(StorageError, match="the URI of it is not valid"):
        parse_uri(uri, "it")


def test_an_address_prints_without_its_secrets() -> None:
    address = parse_uri(f"s3://{CANARY}:{CANARY}@b/k?region=u", "it")
    assert address.endpoint.secret_key == CANARY
    assert CANARY not in f"{address} {address!r} {address.endpoint}"


@pytest.mark.parametrize("uri", [f"s3://b/k?{CANARY}=1", f"s3://a:{CANARY}@b/k k", f"s3://a:{CANARY}@/k"])
def test_a_refusal_shows_no_secret(uri: str) -> None:
    with pytest.raises(StorageError) as caught:
        parse_uri(uri, "it")
    assert CANARY not in str(caught.value)
