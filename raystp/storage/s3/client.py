"""Talking to S3 through boto3: one client per process and endpoint, bounded retries, and errors as sentences.

boto3's own retries are off, since they know no deadline: `persist` does them, and counts all of them against one
`StallTimeout`. A sentence shows a status and a code, never a store's free text, headers or URL, in which it may repeat
what it was sent.
"""

import functools
import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import boto3.session
import urllib3.exceptions
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
)

from raystp.errors import StorageError
from raystp.storage.patience import RetryPolicy, StallTimeout
from raystp.storage.s3.address import Endpoint

ANSWERED = ClientError
"""The store answered, and not with what was asked for."""

CONNECTIONS = 64
CONNECT_S = 10.0

_PASSING_STATUS = {408, 429}
_PASSING_CODE = {"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "RequestTimeTooSkewed"}
_CODE = re.compile(r"[A-Z][A-Za-z]{1,63}")
_LOCK = threading.Lock()

T = TypeVar("T")


class AskAgain(Exception):  # noqa: N818 -- nothing went wrong that another try cannot mend
    """An answer that is not the whole of what was asked for; its text says what was missing."""


def client(door: Endpoint, patience: RetryPolicy) -> Any:
    """Return this process's client for an endpoint; threads may share it."""
    with _LOCK:
        return _client(os.getpid(), door, patience.try_s)


@functools.lru_cache(maxsize=32)
def _client(process: int, door: Endpoint, try_s: float) -> Any:  # noqa: ARG001 -- a fork must not share sockets
    _say_no_secrets()
    session = boto3.session.Session()
    region = door.region or session.region_name or "us-east-1"
    config = Config(
        retries={"total_max_attempts": 1},
        connect_timeout=min(CONNECT_S, try_s),
        read_timeout=try_s,
        max_pool_connections=CONNECTIONS,
        # Stores of other makers refuse the newer checksums; what is sent carries an MD5 instead.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path"} if door.endpoint else {},
    )
    return session.client(
        "s3",
        region_name=region,
        endpoint_url=door.endpoint,
        aws_access_key_id=door.access_key,
        aws_secret_access_key=door.secret_key,
        verify=door.verify,
        config=config,
    )


def _say_no_secrets() -> None:
    """Keep botocore from logging each request's headers, session token and all, where only the root asks for DEBUG."""
    if (log := logging.getLogger("botocore")).level == logging.NOTSET:
        log.setLevel(logging.INFO)


def persist(ask: Callable[[], T], what: str, *, patience: RetryPolicy, watch: StallTimeout) -> T:
    """Return what `ask` gives, asking again after what may pass; `what` says it in an error, as in `read s3://b/k`."""
    tries = 0
    while True:
        watch.check()
        try:
            return ask()
        except (ClientError, BotoCoreError, urllib3.exceptions.HTTPError, AskAgain) as error:
            passing = _passing(error)
            if passing is None:
                raise StorageError(_sentence(error, what)) from None
            if tries == patience.retries:
                msg = f"cannot {what}: {passing}; it was asked {tries + 1} times"
                raise StorageError(msg) from None
        time.sleep(patience.backoff_s * 2**tries * random.uniform(0.5, 1.0))
        tries += 1
        watch.try_again()


def answer(error: Any) -> tuple[int, str]:
    """Return an answer's status and code."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return status, code if _CODE.fullmatch(code) else ""


def _passing(error: Exception) -> str | None:
    """Say what went wrong, if it may go better the next time."""
    if isinstance(error, AskAgain):
        return str(error)
    if isinstance(error, ClientError):
        status, code = answer(error)
        passes = status >= 500 or status in _PASSING_STATUS or code in _PASSING_CODE  # noqa: PLR2004 -- 5xx
        return f"the store answered {_words(status, code)}" if passes else None
    if isinstance(error, (HTTPClientError, urllib3.exceptions.HTTPError)):
        return f"the connection broke or timed out ({type(error).__name__})"
    return None


def _sentence(error: Exception, what: str) -> str:
    """Say what went wrong for good."""
    if isinstance(error, ClientError):
        status, code = answer(error)
        if status == 404:  # noqa: PLR2004 -- not found
            return f"cannot {what}: there is no such object ({_words(status, code)})"
        if status in {401, 403}:
            return (
                f"cannot {what}: the store refuses it ({_words(status, code)}); these credentials lack the right, or "
                "the object is not there and may not be listed"
            )
        return f"cannot {what}: the store answered {_words(status, code)}"
    if isinstance(error, NoCredentialsError):
        return f"cannot {what}: there are no credentials in the environment, the profile, or the URI"
    return f"cannot {what}: {type(error).__name__}"


def _words(status: int, code: str) -> str:
    return str(status) if code in {"", str(status)} else f"{status} {code}"
