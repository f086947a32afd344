"""What the URI of an object says: store, bucket, key, endpoint. `s3://` is read as pyarrow reads it."""

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from raystp.errors import StorageError

_URI = re.compile(r"[a-z0-9]+://([A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")
_SERVER = {"scheme", "endpoint_override"}
_OPTIONS = {
    "s3": {
        *_SERVER,
        "region",
        "tls_ca_file_path",
        "tls_ca_dir_path",
        "tls_verify_certificates",
        # Of pyarrow alone:
        "allow_bucket_creation",
        "allow_bucket_deletion",
        "allow_delayed_open",
        "background_writes",
        "check_directory_existence_before_creation",
        "smart_defaults",
    },
    "gs": {*_SERVER, "project_id", "retry_limit_seconds", "default_bucket_location"},
    "az": {*_SERVER, "account_name"},
}
"""Store -> what the query of its URIs may have."""
_ALIASES = {"gcs": "gs"}
_TRUE = {"true", "1"}


@dataclass(frozen=True)
class Endpoint:
    """A server and its credentials, as a URI gives them; None leaves it to the environment or the profile."""

    store: str
    """`s3`, `gs` or `az`."""
    url: str | None
    region: str | None
    account: str | None
    """The storage account of `az`."""
    access_key: str | None = field(repr=False)
    secret_key: str | None = field(repr=False)
    verify: bool | str | None
    """Whether certificates are checked, or the file or folder of the trusted ones."""


@dataclass(frozen=True)
class ObjectAddress:
    """One object."""

    endpoint: Endpoint
    bucket: str
    """Bucket, or container of `az`."""
    key: str
    """Empty for the bucket itself."""


def parse_uri(uri: str, shown: str) -> ObjectAddress:
    """Parse the URI of an object or folder in a store.

    Raises StorageError if it is not valid; the message has no part of it but `shown`.
    """
    parts = urlsplit(uri)
    store = _ALIASES.get(parts.scheme, parts.scheme)
    if store not in _OPTIONS:
        msg = f"{shown} is in no known store: give a path, or a URI that starts with s3://, gs:// or az://"
        raise StorageError(msg)
    options: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        options.setdefault(name, value)  # pyarrow takes the first
    if not _URI.fullmatch(uri) or not set(options) <= _OPTIONS[store]:
        allowed = ", ".join(sorted(_OPTIONS[store]))
        msg = f"the URI of {shown} is not valid: its query may have {allowed}, each as name=value"
        raise StorageError(msg)
    credentials, _, host = parts.netloc.rpartition("@")
    access_key, _, secret_key = credentials.partition(":")
    endpoint = Endpoint(
        store=store,
        url=_url(options),
        region=options.get("region") or None,
        account=options.get("account_name") or None,
        access_key=unquote(access_key) if credentials else None,
        secret_key=unquote(secret_key) if credentials else None,
        verify=_verify(options),
    )
    bucket, key = host.partition(":")[0], unquote(parts.path).strip("/")
    if not bucket or (key and set(key.split("/")) & {"", ".", ".."}):
        msg = f"{shown} is not the URI of an object: it needs a bucket and a key, as in {store}://bucket/folder/file"
        raise StorageError(msg)
    return ObjectAddress(endpoint, bucket, key)


def _url(options: dict[str, str]) -> str | None:
    server = options.get("endpoint_override")
    if not server:
        return None
    return server if "://" in server else f"{options.get('scheme', 'https')}://{server}"


def _verify(options: dict[str, str]) -> bool | str | None:
    if "tls_verify_certificates" in options and options["tls_verify_certificates"].lower() not in _TRUE:
        return False
    return options.get("tls_ca_file_path") or options.get("tls_ca_dir_path") or None
