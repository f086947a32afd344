"""Connections to object stores: one per process, endpoint and bucket, with credentials from the usual sources.

S3: the URI, the environment, the AWS profile, the machine's role. Google Cloud: application default credentials. Azure:
the environment (`AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_ACCOUNT_KEY`, ...) or the managed identity.
"""

import contextlib
import datetime as dt
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.fs as pafs
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from raystp.errors import StorageError
from raystp.storage import aws
from raystp.storage.endpoint import Endpoint, parse_uri
from raystp.storage.retry import RetryPolicy

if TYPE_CHECKING:
    from obstore.store import AzureConfig, ClientConfig, GCSConfig, RetryConfig, S3Config

Store = S3Store | GCSStore | AzureStore
Verify = bool | str | None

CONNECT_TIMEOUT_S = 10.0
NO_TIMEOUT = dt.timedelta(days=7)
"""For a whole response: `StallTimeout` measures its progress."""


@dataclass(frozen=True)
class OpenStore:
    """Connections to one bucket, which threads may share."""

    store: Store
    """Without retries, for requests that `retry` repeats."""
    transfers: Store
    """With obstore's retries, for uploads in parts, lists and removals, which are many requests each."""
    server: str
    """The server's address without secrets."""


@dataclass(frozen=True)
class _Connection:
    make: Callable[..., Store]
    server: str
    verify: Verify


def open_store(endpoint: Endpoint, bucket: str, policy: RetryPolicy) -> OpenStore:
    """Return this process's connections to a bucket. Raises StorageError if it cannot be opened."""
    return _open(os.getpid(), endpoint, bucket, policy)


@functools.lru_cache(maxsize=64)
def _open(process: int, endpoint: Endpoint, bucket: str, policy: RetryPolicy) -> OpenStore:  # noqa: ARG001 -- a fork must not share sockets
    connect = {"s3": _connect_s3, "gs": _connect_gs, "az": _connect_az}[endpoint.store]
    try:
        found = connect(endpoint, bucket)
        store = found.make(
            client_options=_client_options(found, policy.attempt_timeout_s), retry_config={"max_retries": 0}
        )
        transfers = found.make(
            client_options=_client_options(found, policy.stall_timeout_s), retry_config=_retry_config(policy)
        )
    except (BaseError, ValueError, OSError) as error:
        msg = f"cannot open {endpoint.store}://{bucket}: its endpoint, credentials or certificates are not valid"
        raise StorageError(f"{msg} ({type(error).__name__})") from None
    return OpenStore(store, transfers, found.server)


def _connect_s3(endpoint: Endpoint, bucket: str) -> _Connection:
    profile = aws.profile()
    from_environment = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    url = endpoint.url or from_environment or profile.get("endpoint_url")
    region = endpoint.region or _region(bucket, profile, is_aws=url is None)
    # AWS wants the bucket in the host name, where a certificate covers one label; others want it in the path.
    config: S3Config = {"region": region, "virtual_hosted_style_request": url is None and "." not in bucket}
    if url is not None:
        config |= {"endpoint": url, "aws_endpoint_url_s3": url}
    provider = aws.credentials(endpoint, f"s3://{bucket}")
    verify = endpoint.verify if endpoint.verify is not None else os.environ.get("AWS_CA_BUNDLE")
    make = functools.partial(S3Store, bucket, config=config, credential_provider=provider)
    return _Connection(make, url or f"https://s3.{region}.amazonaws.com", verify)


def _region(bucket: str, profile: dict[str, str], *, is_aws: bool) -> str:
    """Return the region of a bucket: the one that AWS reports, else the configured one."""
    if is_aws:
        with contextlib.suppress(OSError):
            return str(pafs.resolve_s3_region(bucket))
    configured = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or profile.get("region")
    return configured or "us-east-1"


def _connect_gs(endpoint: Endpoint, bucket: str) -> _Connection:
    config: GCSConfig = {"skip_signature": endpoint.access_key == "anonymous"}
    if endpoint.url is not None:
        config["base_url"] = endpoint.url
    make = functools.partial(GCSStore, bucket, config=config)
    return _Connection(make, endpoint.url or "https://storage.googleapis.com", endpoint.verify)


def _connect_az(endpoint: Endpoint, bucket: str) -> _Connection:
    account = _azure_account(endpoint)
    config: AzureConfig = {"account_name": account}
    if endpoint.url is not None:
        config["endpoint"] = endpoint.url
    make = functools.partial(AzureStore, bucket, config=config)
    return _Connection(make, endpoint.url or f"https://{account}.blob.core.windows.net", endpoint.verify)


def _azure_account(endpoint: Endpoint) -> str:
    account = endpoint.account or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    if account is None:
        msg = "an az:// URI needs AZURE_STORAGE_ACCOUNT_NAME in the environment, or ?account_name=... at its end"
        raise StorageError(msg)
    return account


def _client_options(connection: _Connection, timeout_s: float) -> "ClientConfig":
    options: ClientConfig = {
        "allow_http": connection.server.startswith("http://"),
        "timeout": NO_TIMEOUT,
        "read_timeout": dt.timedelta(seconds=timeout_s),
        "connect_timeout": dt.timedelta(seconds=min(CONNECT_TIMEOUT_S, timeout_s)),
        "allow_invalid_certificates": connection.verify is False,
    }
    if isinstance(connection.verify, str):
        path = Path(connection.verify)
        files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
        options["root_certificate"] = b"\n".join(file.read_bytes() for file in files)
    return options


def _retry_config(policy: RetryPolicy) -> "RetryConfig":
    """Return obstore's retries; none starts after the stall timeout."""
    longest = dt.timedelta(seconds=policy.backoff_s * 2**policy.retries)
    return {
        "max_retries": policy.retries,
        "retry_timeout": dt.timedelta(seconds=policy.stall_timeout_s),
        "backoff": {"init_backoff": dt.timedelta(seconds=policy.backoff_s), "max_backoff": longest, "base": 2},
    }


def ray_filesystem(uri: str, shown: str) -> tuple[pafs.FileSystem, str]:
    """Return pyarrow's own file system for a URI, and the path in it: Ray takes no other.

    No test reaches Azure itself.
    """
    if not uri.startswith("az://"):
        filesystem, path = pafs.FileSystem.from_uri(uri)
        return filesystem, str(path)
    address = parse_uri(uri, shown)
    filesystem = pafs.AzureFileSystem(
        _azure_account(address.endpoint),
        account_key=os.environ.get("AZURE_STORAGE_ACCOUNT_KEY"),
        sas_token=os.environ.get("AZURE_STORAGE_SAS_TOKEN"),
    )
    return filesystem, f"{address.bucket}/{address.key}"
