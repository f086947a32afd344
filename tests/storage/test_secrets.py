"""A seeded canary: no key, no secret, no session token in what is raised, printed, logged, or named on disk."""

import logging
import traceback
from pathlib import Path

import pytest

from raystp.errors import StorageError
from raystp.storage import StoragePath
from raystp.storage.node_cache import NodeCache
from raystp.storage.retry import RetryPolicy
from tests.storage.fault_proxy import Proxy

SOON = RetryPolicy(stall_timeout_s=0.4, retries=1, backoff_s=0.01)
KEY, SECRET, TOKEN = "canaryKey0", "canarySecret1", "canaryToken2"


@pytest.fixture(params=["uri", "environment"])
def place(request: pytest.FixtureRequest, far: StoragePath, monkeypatch: pytest.MonkeyPatch) -> StoragePath:
    """A folder whose key and secret are in its URI, or in the environment; a token is there too."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    given = f"s3://{KEY}:{SECRET}@" if request.param == "uri" else "s3://"
    return StoragePath.of(far.uri.replace("s3://", given))


def test_no_secret_is_seen_anywhere(
    place: StoragePath, proxy: Proxy, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    cache, file = NodeCache(tmp_path / "cache", 1000), place / "slide.svs"
    seen = [repr(file), str(file.write_new(b"x" * 100, policy=SOON)), file.version(), repr(file.stored_object())]
    with cache.fetch(file) as path:
        seen += [str(path), *map(str, tmp_path.rglob("*"))]
    for kind, at in [("status", 403), ("status", 500), ("status", 400), ("cut", 1), ("silent", 0)]:
        for method in ("GET", "HEAD", "PUT"):
            proxy.clear()
            proxy.add(kind, at, method=method, says="Odd", text=f"{KEY} {SECRET} {TOKEN}")
            seen += errors_of(file, cache)
    said = "\n".join(seen) + caplog.text
    assert "403 Odd" in said
    assert "timed out" in said
    for secret in (KEY, SECRET, TOKEN, "Signature="):
        assert secret not in said


def errors_of(file: StoragePath, cache: NodeCache) -> list[str]:
    """Use each verb once, and return what was raised as Python would print it."""

    def fetch() -> None:
        with cache.fetch(file, policy=SOON):
            pass

    seen = []
    for use in (
        lambda: file.write_new(b"y", policy=SOON),
        lambda: file.read_range(0, 100, version=None, policy=SOON),
        fetch,
    ):
        try:
            use()
        except StorageError as error:
            seen.append("".join(traceback.format_exception(error)))
    return seen
