"""What an `s3://` URI says: bucket, key, and the way there. Read as pyarrow reads it, so both go to the same object."""

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from raystp.errors import StorageError

_URI = re.compile(r"s3://([A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")
_KNOWN = {
    "region",
    "scheme",
    "endpoint_override",
    "allow_bucket_creation",
    "allow_bucket_deletion",
    "allow_delayed_open",
    "background_writes",
    "check_directory_existence_before_creation",
    "smart_defaults",
    "tls_ca_file_path",
    "tls_ca_dir_path",
    "tls_verify_certificates",
}
_YES = {"true", "1"}


@dataclass(frozen=True)
class Endpoint:
    """An endpoint, and who asks there; None is what the environment or the profile says."""

    endpoint: str | None
    region: str | None
    access_key: str | None = field(repr=False)
    secret_key: str | None = field(repr=False)
    verify: bool | str | None
    """Whether certificates are checked, or the file or folder of those that are trusted."""


@dataclass(frozen=True)
class ObjectAddress:
    """One object."""

    door: Endpoint
    bucket: str
    key: str


def read_address(uri: str, shown: str) -> ObjectAddress:
    """Take an `s3://` URI apart.

    Raises StorageError, which shows nothing of it but `shown`, where pyarrow would refuse it.
    """
    parts = urlsplit(uri)
    asked: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        asked.setdefault(name, value)  # the first counts
    if not _URI.fullmatch(uri) or not set(asked) <= _KNOWN:
        msg = f"the URI of {shown} cannot be read: its query may have {', '.join(sorted(_KNOWN))}, each as name=value"
        raise StorageError(msg)
    authority, _, host = parts.netloc.rpartition("@")
    name, _, secret = authority.partition(":")
    door = Endpoint(
        endpoint=_endpoint(asked),
        region=asked.get("region") or None,
        access_key=unquote(name) if authority else None,
        secret_key=unquote(secret) if authority else None,
        verify=_verify(asked),
    )
    bucket, key = host.partition(":")[0], unquote(parts.path).strip("/")
    if not bucket or not key:
        msg = f"{shown} names no object: an s3:// URI has a bucket and a key, as in s3://bucket/folder/file"
        raise StorageError(msg)
    return ObjectAddress(door, bucket, key)


def _endpoint(asked: dict[str, str]) -> str | None:
    given = asked.get("endpoint_override")
    if not given:
        return None
    return given if "://" in given else f"{asked.get('scheme', 'https')}://{given}"


def _verify(asked: dict[str, str]) -> bool | str | None:
    if "tls_verify_certificates" in asked and asked["tls_verify_certificates"].lower() not in _YES:
        return False
    return asked.get("tls_ca_file_path") or asked.get("tls_ca_dir_path") or None
