"""Endpoint, region and credentials of S3 come from the URI, the environment or the AWS profile."""

from pathlib import Path

import pyarrow.fs as pafs
import pytest
from obstore.store import S3Store

from raystp.errors import StorageError
from raystp.storage import StoragePath, aws, stores
from raystp.storage.endpoint import parse_uri
from raystp.storage.retry import RETRY_POLICY
from tests.storage.conftest import CANARY

NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL_S3")


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove the credentials of the environment and the profile; open each store again."""
    for name in (*NAMES, "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    stores._open.cache_clear()


def write_profile(folder: Path, name: str, *, region: str, url: str) -> None:
    keys = f"aws_access_key_id = key\naws_secret_access_key = {CANARY}\n"
    (folder / "credentials").write_text(f"[{name}]\n{keys}", encoding="utf-8")
    section = name if name == "default" else f"profile {name}"
    (folder / "config").write_text(f"[{section}]\nregion = {region}\nendpoint_url = {url}\n", encoding="utf-8")


def region_of(uri: str) -> str | None:
    address = parse_uri(uri, "it")
    store = stores.open_store(address.endpoint, address.bucket, RETRY_POLICY).store
    assert isinstance(store, S3Store)
    return store.config.get("region")


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_the_endpoint_comes_from_the_environment(
    bucket: StoragePath, store_port: int, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    (bucket / "file").write_bytes(b"x")
    stores._open.cache_clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv(variable, f"http://127.0.0.1:{store_port}")
    assert StoragePath.of(f"{bucket!s}/file").read_bytes() == b"x"


@pytest.mark.parametrize("name", ["default", "lab"])
def test_endpoint_region_and_credentials_come_from_the_profile(
    bucket: StoragePath, store_port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, name: str
) -> None:
    (bucket / "file").write_bytes(b"x")
    stores._open.cache_clear()
    for variable in NAMES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_PROFILE", name)
    write_profile(tmp_path, name, region="eu-west-3", url=f"http://127.0.0.1:{store_port}")
    assert StoragePath.of(f"{bucket!s}/file").read_bytes() == b"x"
    assert region_of(str(bucket)) == "eu-west-3"


def test_the_region_is_the_uris_else_the_one_that_aws_reports_else_the_configured_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setattr(pafs, "resolve_s3_region", lambda bucket: f"region-of-{bucket}")
    assert region_of("s3://one/k?region=us-west-2") == "us-west-2"
    assert region_of("s3://two/k") == "region-of-two"
    assert region_of("s3://two/k?endpoint_override=127.0.0.1:9") == "eu-west-1"

    def fail(_: str) -> str:
        raise OSError

    monkeypatch.setattr(pafs, "resolve_s3_region", fail)
    assert region_of("s3://three/k") == "eu-west-1"


def test_without_credentials_nothing_is_requested() -> None:
    path = StoragePath.of("s3://bucket/k?endpoint_override=127.0.0.1:9&scheme=http")
    with pytest.raises(StorageError, match="cannot open s3://bucket: there are no credentials in the environment"):
        path.read_bytes()


def test_an_absent_profile_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "absent")
    with pytest.raises(StorageError, match=r"cannot open s3://bucket: ProfileNotFound in the AWS profile"):
        StoragePath.of("s3://bucket/k?endpoint_override=127.0.0.1:9").read_bytes()


def test_without_botocore_a_profile_is_refused_and_the_environment_is_enough(
    server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(aws, "botocore", None)
    write_profile(tmp_path, "default", region="eu-west-3", url="http://127.0.0.1:9")
    path = StoragePath.of(f"s3://bucket/{tmp_path.name}{server}")
    with pytest.raises(StorageError, match=r"profiles are read through botocore; run pip install 'raystp\[s3\]'"):
        path.write_bytes(b"x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    path.write_bytes(b"x")
    with path.local() as file:
        assert file.read_bytes() == b"x"


def test_credentials_in_the_uri_win_and_are_not_mixed_with_those_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", CANARY)
    endpoint = parse_uri("s3://key:secret@bucket/k", "it").endpoint
    provider = aws.credentials(endpoint, "s3://bucket")
    assert provider is not None
    found = provider()
    assert (found["access_key_id"], found["secret_access_key"], found.get("token")) == ("key", "secret", None)


def test_certificates_of_a_file_or_folder_are_used(tmp_path: Path) -> None:
    query = f"region=u&endpoint_override=127.0.0.1:9&tls_ca_file_path={tmp_path / 'none.pem'}"
    with pytest.raises(StorageError, match=r"cannot open s3://bucket: .*certificates are not valid .FileNotFoundError"):
        StoragePath.of(f"s3://key:secret@bucket/k?{query}").read_bytes()
