"""Range reads of one version: the same bytes from any store, and an end in bounded time with any fault."""

import time
from pathlib import Path

import numpy as np
import pytest

from raystp.errors import StorageError
from raystp.storage import StoragePath
from raystp.storage.objects import ByteRange
from raystp.storage.retry import RetryPolicy, StallTimeout
from tests.storage.fault_proxy import Proxy

QUICK = RetryPolicy(stall_timeout_s=2.0, min_bytes_per_s=50_000.0, rate_window_s=2.0, backoff_s=0.02)
CONTENT = np.random.default_rng(0).bytes(400_000)
RANGES = [(0, 10), (399_990, 10), (100, 100_000), (50, 100), (7, 0), (0, 400_000)]


@pytest.fixture
def file(folder: StoragePath) -> StoragePath:
    (folder / "slide.svs").write_bytes(CONTENT)
    return folder / "slide.svs"


@pytest.fixture
def proxied_file(bucket: StoragePath, proxied: StoragePath) -> StoragePath:
    (bucket / "slide.svs").write_bytes(CONTENT)
    return proxied / "slide.svs"


@pytest.mark.parametrize("threads", [1, 3, 16])
def test_ranges_are_the_bytes_of_the_file_in_the_requested_order(file: StoragePath, threads: int) -> None:
    for version in (None, file.version()):
        found = file.read_ranges(RANGES, version=version, threads=threads)
        assert found == [CONTENT[at : at + length] for at, length in RANGES]
    assert file.read_range(5, 9, version=file.version()) == CONTENT[5:14]
    assert file.read_ranges([], version=None) == []


def test_a_version_changes_only_with_the_content(file: StoragePath) -> None:
    version = file.version()
    assert file.version() == version
    file.write_bytes(CONTENT[::-1])
    assert file.version() != version


def test_a_replaced_file_is_not_read(file: StoragePath) -> None:
    version = file.version()
    file.write_bytes(CONTENT[::-1])
    with pytest.raises(StorageError, match=r"/slide.svs was replaced while it was read"):
        file.read_range(0, 10, version=version)
    with pytest.raises(StorageError, match=r"/slide.svs was replaced while it was read"):
        file.read_ranges(RANGES, version=version)


@pytest.mark.parametrize("at", [(399_999, 2), (400_000, 1), (500_000, 5)])
def test_a_range_past_the_end_is_an_error(file: StoragePath, at: tuple[int, int]) -> None:
    with pytest.raises(StorageError, match=r"/slide.svs ends "):
        file.read_range(*at, version=file.version())


def test_an_absent_file_has_no_version_and_no_bytes(folder: StoragePath) -> None:
    with pytest.raises(StorageError, match="/none"):
        (folder / "none").version()
    with pytest.raises(StorageError, match="/none"):
        (folder / "none").read_range(0, 1, version=None)


def test_a_local_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    path.write_bytes(CONTENT)
    stored = StoragePath.of(path).stored_object()
    version = stored.info().version

    with pytest.raises(StorageError, match="was replaced while it was read"):
        stored.read(
            ByteRange(0, 10),
            lambda _: path.write_bytes(b"x"),
            version=version,
            stall=StallTimeout("slide", stored.policy),
        )


# S1: error responses


@pytest.mark.parametrize(("status", "times"), [(500, 2), (503, 3), (429, 1)])
def test_a_transient_error_is_retried(proxied_file: StoragePath, proxy: Proxy, status: int, times: int) -> None:
    proxy.add("status", status, times=times)
    assert proxied_file.read_range(0, 400_000, version=None, policy=QUICK) == CONTENT
    assert proxy.count("GET") == times + 1


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (404, "NoSuchKey"), (400, "InvalidRequest")])
def test_a_refusal_is_reported_at_once_and_not_retried(
    proxied_file: StoragePath, proxy: Proxy, status: int, code: str
) -> None:
    proxy.add("status", status, code=code)
    started = time.monotonic()
    with pytest.raises(StorageError, match=rf"cannot read s3://bucket/\S+/slide.svs: .*{status} {code}"):
        proxied_file.read_ranges([(at, 10) for at in range(200)], version="v", threads=4, policy=QUICK)
    assert time.monotonic() - started < 2.0
    assert proxy.count("GET") <= 8


def test_lasting_503_ends_after_the_retries(proxied_file: StoragePath, proxy: Proxy) -> None:
    proxy.add("status", 503, code="SlowDown")
    with pytest.raises(StorageError, match=r"slide.svs: the store answered 503 SlowDown; gave up after 4 attempts"):
        proxied_file.read_range(0, 10, version=None, policy=QUICK)
    assert proxy.count("GET") == 4


# S2: bodies that end early


@pytest.mark.parametrize("kind", ["cut", "reset", "short"])
def test_a_retry_continues_where_the_body_ended(proxied_file: StoragePath, proxy: Proxy, kind: str) -> None:
    proxy.add(kind, 1000, times=2)
    policy = RetryPolicy(backoff_s=0.02)  # long timeouts: on a busy machine a slow attempt is not a stalled one
    assert proxied_file.read_range(0, 400_000, version=proxied_file.version(), policy=policy) == CONTENT
    assert proxy.count("GET") == 3
    if kind == "cut":
        spans = [request.span for request in proxy.requests if request.method == "GET"]
        assert spans == ["bytes=0-399999", "bytes=1000-399999", "bytes=2000-399999"]


@pytest.mark.parametrize("kind", ["cut", "reset", "short"])
def test_a_body_that_always_ends_early_is_an_error(proxied_file: StoragePath, proxy: Proxy, kind: str) -> None:
    proxy.add(kind, 1)
    with pytest.raises(StorageError, match=r"cannot read s3://bucket/\S+/slide.svs: .*; gave up after 4 attempts"):
        proxied_file.read_range(0, 400_000, version=proxied_file.version(), policy=QUICK)


@pytest.mark.parametrize("kind", ["whole", "shift"])
def test_a_response_with_another_range_is_never_used(proxied_file: StoragePath, proxy: Proxy, kind: str) -> None:
    proxy.add(kind, 1)
    with pytest.raises(StorageError, match="bytes 5 to 14 were requested, and the store sent another range"):
        proxied_file.read_range(5, 9, version=proxied_file.version(), policy=QUICK)


# S3: bodies that do not arrive


def test_a_silent_store_is_an_error_in_time(proxied_file: StoragePath, proxy: Proxy) -> None:
    proxy.add("silent")
    started = time.monotonic()
    with pytest.raises(StorageError, match=r"/slide.svs"):
        proxied_file.read_ranges(RANGES, version=None, policy=QUICK)
    assert 0.8 < (time.monotonic() - started) / QUICK.stall_timeout_s < 1.2


def test_a_store_that_is_too_slow_is_an_error_in_time(proxied_file: StoragePath, proxy: Proxy) -> None:
    proxy.add("drip", 1000)
    started = time.monotonic()
    with pytest.raises(StorageError, match=r"sends s3://bucket/\S+/slide.svs at \d\.\d KB/s .*minimum is 50 KB/s"):
        proxied_file.read_range(0, 400_000, version=None, policy=QUICK)
    assert 0.8 < (time.monotonic() - started) / QUICK.rate_window_s < 1.2


def test_a_stalled_attempt_is_retried_and_its_time_is_not_in_the_average(
    proxied_file: StoragePath, proxy: Proxy
) -> None:
    proxy.add("silent", times=2)
    patience = RetryPolicy(stall_timeout_s=2.0, min_bytes_per_s=800_000.0, rate_window_s=0.6, backoff_s=0.02)
    assert proxied_file.read_range(0, 400_000, version=None, policy=patience) == CONTENT


# S4: objects that change


def test_an_object_replaced_between_two_attempts_is_an_error(
    proxied_file: StoragePath, bucket: StoragePath, proxy: Proxy
) -> None:
    version = proxied_file.version()
    proxy.add("cut", 1000, times=1)
    stored = proxied_file.stored_object(QUICK)

    def replace(_: bytes) -> None:
        (bucket / "slide.svs").write_bytes(CONTENT[::-1])

    with pytest.raises(StorageError, match=r"/slide.svs was replaced while it was read"):
        stored.read(ByteRange(0, 4000), replace, version=version, stall=StallTimeout("slide", QUICK))


def test_a_read_without_a_version_keeps_the_version_of_its_first_attempt(
    proxied_file: StoragePath, bucket: StoragePath, proxy: Proxy
) -> None:
    proxy.add("cut", 1000, times=1)
    stored = proxied_file.stored_object(QUICK)

    def replace(_: bytes) -> None:
        (bucket / "slide.svs").write_bytes(CONTENT[::-1])

    with pytest.raises(StorageError, match="was replaced"):
        stored.read(ByteRange(0, 4000), replace, version=None, stall=StallTimeout("slide", QUICK))


def test_each_request_has_the_version_as_a_condition(proxied_file: StoragePath, proxy: Proxy) -> None:
    version = proxied_file.version()
    proxied_file.read_ranges(RANGES, version=version)
    assert {request.version for request in proxy.requests if request.method == "GET"} == {f'"{version}"'}


def test_range_requests_reuse_connections(proxied_file: StoragePath, proxy: Proxy) -> None:
    before = proxy.connections
    for _ in range(3):
        proxied_file.read_ranges([(at * 1000, 1000) for at in range(40)], version=None, threads=4, policy=QUICK)
    assert proxy.connections - before <= 4


def test_range_requests_run_in_parallel(proxied_file: StoragePath, proxy: Proxy) -> None:
    version, ranges = proxied_file.version(), [(at * 1000, 1000) for at in range(64)]
    proxied_file.read_ranges(ranges, version=version)
    proxy.latency_s = 0.1
    started = time.monotonic()
    proxied_file.read_ranges(ranges, version=version)
    assert time.monotonic() - started < 64 * 0.1 / 4  # 16 at once: 0.4 s and some, against 6.4 s one by one
