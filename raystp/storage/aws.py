"""What S3 has and obstore lacks: AWS profiles, and the checksums stored with objects. Through botocore.

botocore is in the extra `s3`. Without it the credentials are those of the environment, the URI or the machine's role,
and a download is checked by its size and version alone.
"""

import base64
import datetime as dt
import functools
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raystp.errors import StorageError
from raystp.storage.endpoint import Endpoint, ObjectAddress
from raystp.storage.retry import RetryPolicy, TransientError

if TYPE_CHECKING:
    from obstore.store import S3Credential

try:
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
except ModuleNotFoundError:
    botocore = None

CONNECT_TIMEOUT_S = 10.0

_VALID = dt.timedelta(minutes=10)
"""botocore renews temporary credentials at least this long before they expire."""
_CHECKSUMS = {"crc32": "ChecksumCRC32", "sha256": "ChecksumSHA256", "sha1": "ChecksumSHA1"}
_MD5 = re.compile(r"[0-9a-f]{32}")


def credentials(endpoint: Endpoint, shown: str) -> "Callable[[], S3Credential] | None":
    """Return a provider of credentials; None leaves them to obstore. Raises StorageError if there are none."""
    if endpoint.access_key is not None:
        return functools.partial(_credential, endpoint.access_key, endpoint.secret_key or "")
    if botocore is None:
        _refuse_profile(shown)
        return None
    try:
        found = _session().get_credentials()
    except BotoCoreError as error:
        msg = f"cannot open {shown}: {type(error).__name__} in the AWS profile"
        raise StorageError(msg) from None
    if found is None:
        msg = f"cannot open {shown}: there are no credentials in the environment, the AWS profile or the URI"
        raise StorageError(msg)

    def provide() -> "S3Credential":
        now = found.get_frozen_credentials()
        return _credential(now.access_key, now.secret_key, now.token, dt.datetime.now(dt.UTC) + _VALID)

    return provide


def profile() -> dict[str, str]:
    """Return the settings of the AWS profile, such as `region` and `endpoint_url`."""
    if botocore is None:
        return {}
    try:
        return dict(_session().get_scoped_config())
    except BotoCoreError:
        return {}


def stored_checksum(address: ObjectAddress, version: str, policy: RetryPolicy) -> tuple[str, str] | None:
    """Return a checksum of the whole content: the uploader's, else an ETag that is known to be an MD5."""
    if botocore is None:
        return None
    client = _client(os.getpid(), address.endpoint, policy.attempt_timeout_s)
    key = {"Bucket": address.bucket, "Key": address.key}
    try:
        found = client.head_object(**key, IfMatch=f'"{version}"', ChecksumMode="ENABLED")
    except (BotoCoreError, ClientError) as error:
        msg = f"the request for its checksum failed ({type(error).__name__})"
        raise TransientError(msg) from None
    if found.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT":
        for name, header in _CHECKSUMS.items():
            value = found.get(header, "")
            if value and "-" not in value:
                return name, base64.b64decode(value).hex()
    # With a key of the customer, in a directory bucket, or in another maker's store, an ETag may be any 32 digits.
    unencrypted = {None} if address.endpoint.url else {None, "AES256"}
    if found.get("ServerSideEncryption") not in unencrypted or found.get("SSECustomerAlgorithm"):
        return None
    return ("md5", version) if _MD5.fullmatch(version) and not address.bucket.endswith("--x-s3") else None


def _session() -> Any:
    """Return a new session, which reads the environment and the profile."""
    # Under DEBUG botocore logs the headers of each request, with the session token.
    if (log := logging.getLogger("botocore")).level == logging.NOTSET:
        log.setLevel(logging.INFO)
    return botocore.session.Session()


@functools.lru_cache(maxsize=32)
def _client(process: int, endpoint: Endpoint, timeout_s: float) -> Any:  # noqa: ARG001 -- a fork must not share sockets
    session = _session()
    return session.create_client(
        "s3",
        region_name=endpoint.region or session.get_config_variable("region") or "us-east-1",
        endpoint_url=endpoint.url,
        aws_access_key_id=endpoint.access_key,
        aws_secret_access_key=endpoint.secret_key,
        verify=endpoint.verify,
        config=Config(
            retries={"total_max_attempts": 1},
            connect_timeout=min(CONNECT_TIMEOUT_S, timeout_s),
            read_timeout=timeout_s,
            s3={"addressing_style": "path"} if endpoint.url else {},
        ),
    )


def _credential(
    access_key: str, secret_key: str, token: str | None = None, expires_at: dt.datetime | None = None
) -> "S3Credential":
    return {
        "access_key_id": access_key,
        "secret_access_key": secret_key,
        "token": token,
        "expires_at": expires_at,
    }


def _refuse_profile(shown: str) -> None:
    """Raise StorageError if the credentials are in an AWS profile, which only botocore reads."""
    files = [os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), "~/.aws/config"]
    has_profile = "AWS_PROFILE" in os.environ or any(Path(file).expanduser().exists() for file in files)
    if has_profile and "AWS_ACCESS_KEY_ID" not in os.environ:
        msg = f"cannot open {shown}: AWS profiles are read through botocore; run pip install 'raystp[s3]'"
        raise StorageError(msg)
