"""No key, secret or session token in errors, output, logs and file names."""

import logging
import traceback
from pathlib import Path

import pytest

from raystp.errors import StorageError
from raystp.storage import StoragePath
from raystp.storage.node_cache import NodeCache
from raystp.storage.retry import RetryPolicy
from tests.storage.fault_proxy import Proxy

QUICK = RetryPolicy(stall_timeout_s=0.4, retries=1, backoff_s=0.01)
KEY, SECRET, TOKEN = "canaryKey0", "canarySecret1", "canaryToken2"


@pytest.fixture(params=["uri", "environment"])
def path(request: pytest.FixtureRequest, proxied: StoragePath, monkeypatch: pytest.MonkeyPatch) -> StoragePath:
    """A folder with key and secret in its URI or in the environment; the environment has a token too."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    given = f"s3://{KEY}:{SECRET}@" if request.param == "uri" else "s3://"
    return StoragePath.of(proxied.uri.replace("s3://", given))


def test_no_secret_is_visible_anywhere(
    path: StoragePath, proxy: Proxy, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    cache, file = NodeCache(tmp_path / "cache", 1000), path / "slide.svs"
    seen = [repr(file), str(file.write_new(b"x" * 100)), file.version(), repr(file.stored_object())]
    with cache.fetch(file) as local:
        seen += [str(local), *map(str, tmp_path.rglob("*"))]
    for kind, at in [("status", 403), ("status", 500), ("status", 400), ("cut", 1), ("silent", 0)]:
        for method in ("GET", "HEAD", "PUT"):
            proxy.clear()
            proxy.add(kind, at, method=method, code="Odd", text=f"{KEY} {SECRET} {TOKEN}")
            seen += errors_of(file, cache)
    message = "\n".join(seen) + caplog.text
    assert "403 Odd" in message
    assert "timed out" in message
    for secret in (KEY, SECRET, TOKEN, "Signature="):
        assert secret not in message


def errors_of(file: StoragePath, cache: NodeCache) -> list[str]:
    """Call each operation once; return the errors as Python prints them."""

    def fetch() -> None:
        with cache.fetch(file, policy=QUICK):
            pass

    seen = []
    for use in (
        lambda: file.write_new(b"y", policy=QUICK),
        lambda: file.read_range(0, 100, version=None, policy=QUICK),
        fetch,
    ):
        try:
            use()
        except StorageError as error:
            seen.append("".join(traceback.format_exception(error)))
    return seen


@pytest.mark.parametrize("status", [400, 403, 404])
def test_no_secret_is_visible_in_errors_of_whole_files(path: StoragePath, proxy: Proxy, status: int) -> None:
    file, errors = path / "slide.svs", []
    for method in ("GET", "HEAD", "PUT", "POST"):
        proxy.add("status", status, method=method, code="Odd", text=f"{KEY} {SECRET} {TOKEN}")
    for use in (file.read_bytes, lambda: file.write_bytes(b"x"), path.names, file.exists, file.remove):
        try:
            use()
        except StorageError as error:
            errors.append("".join(traceback.format_exception(error)))
    assert "cannot write" in "".join(errors)
    for secret in (KEY, SECRET, TOKEN, "Signature="):
        assert secret not in "".join(errors)
