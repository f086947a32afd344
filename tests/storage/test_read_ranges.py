"""Reading parts of one version: the same bytes on any store, and an end in bounded time whatever the store does."""

import time
from pathlib import Path

import numpy as np
import pytest

from raystp.errors import StorageError
from raystp.storage import StoragePath
from raystp.storage.objects import ByteRange
from raystp.storage.retry import RetryPolicy, StallTimeout
from tests.storage.fault_proxy import Proxy

SOON = RetryPolicy(stall_timeout_s=2.0, min_bytes_per_s=50_000.0, rate_window_s=2.0, backoff_s=0.02)
CONTENT = np.random.default_rng(0).bytes(400_000)
RANGES = [(0, 10), (399_990, 10), (100, 100_000), (50, 100), (7, 0), (0, 400_000)]


@pytest.fixture
def file(folder: StoragePath) -> StoragePath:
    (folder / "slide.svs").write_bytes(CONTENT)
    return folder / "slide.svs"


@pytest.fixture
def far_file(bucket: StoragePath, far: StoragePath) -> StoragePath:
    (bucket / "slide.svs").write_bytes(CONTENT)
    return far / "slide.svs"


@pytest.mark.parametrize("threads", [1, 3, 16])
def test_ranges_are_the_files_own_bytes_in_the_order_asked_for(file: StoragePath, threads: int) -> None:
    for version in (None, file.version()):
        found = file.read_ranges(RANGES, version=version, threads=threads)
        assert found == [CONTENT[at : at + length] for at, length in RANGES]
    assert file.read_range(5, 9, version=file.version()) == CONTENT[5:14]
    assert file.read_ranges([], version=None) == []


def test_a_version_changes_with_the_content_alone(file: StoragePath) -> None:
    version = file.version()
    assert file.version() == version
    file.write_bytes(CONTENT[::-1])
    assert file.version() != version


def test_what_was_replaced_is_not_read(file: StoragePath) -> None:
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


def test_what_is_absent_has_no_version_and_no_bytes(folder: StoragePath) -> None:
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


# S1: answers that are errors


@pytest.mark.parametrize(("status", "times"), [(500, 2), (503, 3), (429, 1)])
def test_a_store_that_stumbles_is_asked_again(far_file: StoragePath, proxy: Proxy, status: int, times: int) -> None:
    proxy.add("status", status, times=times)
    assert far_file.read_range(0, 400_000, version=None, policy=SOON) == CONTENT
    assert proxy.count("GET") == times + 1


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (404, "NoSuchKey"), (400, "InvalidRequest")])
def test_a_refusal_is_named_at_once_and_not_asked_again(
    far_file: StoragePath, proxy: Proxy, status: int, code: str
) -> None:
    proxy.add("status", status, says=code)
    started = time.monotonic()
    with pytest.raises(StorageError, match=rf"cannot read s3://bucket/\S+/slide.svs: .*{status} {code}"):
        far_file.read_ranges([(at, 10) for at in range(200)], version="v", threads=4, policy=SOON)
    assert time.monotonic() - started < 2.0
    assert proxy.count("GET") <= 8


def test_a_storm_of_503_ends_after_the_retries(far_file: StoragePath, proxy: Proxy) -> None:
    proxy.add("status", 503, says="SlowDown")
    with pytest.raises(StorageError, match=r"slide.svs: the store answered 503 SlowDown; gave up after 4 attempts"):
        far_file.read_range(0, 10, version=None, policy=SOON)
    assert proxy.count("GET") == 4


# S2: bodies that break off


@pytest.mark.parametrize("kind", ["cut", "reset", "short"])
def test_a_body_that_breaks_off_goes_on_where_it_ended(far_file: StoragePath, proxy: Proxy, kind: str) -> None:
    proxy.add(kind, 1000, times=2)
    assert far_file.read_range(0, 400_000, version=far_file.version(), policy=SOON) == CONTENT
    assert proxy.count("GET") == 3
    if kind == "cut":
        spans = [asked.span for asked in proxy.asked if asked.method == "GET"]
        assert spans == ["bytes=0-399999", "bytes=1000-399999", "bytes=2000-399999"]


@pytest.mark.parametrize("kind", ["cut", "reset", "short"])
def test_a_body_that_always_breaks_off_is_an_error(far_file: StoragePath, proxy: Proxy, kind: str) -> None:
    proxy.add(kind, 1)
    with pytest.raises(StorageError, match=r"cannot read s3://bucket/\S+/slide.svs: .*; gave up after 4 attempts"):
        far_file.read_range(0, 400_000, version=far_file.version(), policy=SOON)


@pytest.mark.parametrize("kind", ["whole", "shift"])
def test_a_response_with_another_range_is_never_used(far_file: StoragePath, proxy: Proxy, kind: str) -> None:
    proxy.add(kind, 1)
    with pytest.raises(StorageError, match="bytes 5 to 14 were requested, and the store sent another range"):
        far_file.read_range(5, 9, version=far_file.version(), policy=SOON)


# S3: bodies that do not come


def test_a_store_that_never_answers_is_given_up_in_time(far_file: StoragePath, proxy: Proxy) -> None:
    proxy.add("silent")
    started = time.monotonic()
    with pytest.raises(StorageError, match=r"/slide.svs"):
        far_file.read_ranges(RANGES, version=None, policy=SOON)
    assert 0.8 < (time.monotonic() - started) / SOON.stall_timeout_s < 1.2


def test_a_store_that_drips_is_given_up_in_time(far_file: StoragePath, proxy: Proxy) -> None:
    proxy.add("drip", 1000)
    started = time.monotonic()
    with pytest.raises(StorageError, match=r"sends s3://bucket/\S+/slide.svs at \d\.\d KB/s .*minimum is 50 KB/s"):
        far_file.read_range(0, 400_000, version=None, policy=SOON)
    assert 0.8 < (time.monotonic() - started) / SOON.rate_window_s < 1.2


def test_a_stalled_try_is_helped_by_another_and_its_time_is_not_in_the_average(
    far_file: StoragePath, proxy: Proxy
) -> None:
    proxy.add("silent", times=2)
    patience = RetryPolicy(stall_timeout_s=2.0, min_bytes_per_s=800_000.0, rate_window_s=0.6, backoff_s=0.02)
    assert far_file.read_range(0, 400_000, version=None, policy=patience) == CONTENT


# S4: objects that change


def test_an_object_replaced_between_two_tries_is_an_error(
    far_file: StoragePath, bucket: StoragePath, proxy: Proxy
) -> None:
    version = far_file.version()
    proxy.add("cut", 1000, times=1)
    stored = far_file.stored_object(SOON)

    def replace(_: bytes) -> None:
        (bucket / "slide.svs").write_bytes(CONTENT[::-1])

    with pytest.raises(StorageError, match=r"/slide.svs was replaced while it was read"):
        stored.read(ByteRange(0, 4000), replace, version=version, stall=StallTimeout("slide", SOON))


def test_without_a_version_a_read_keeps_to_the_one_it_began_with(
    far_file: StoragePath, bucket: StoragePath, proxy: Proxy
) -> None:
    proxy.add("cut", 1000, times=1)
    stored = far_file.stored_object(SOON)

    def replace(_: bytes) -> None:
        (bucket / "slide.svs").write_bytes(CONTENT[::-1])

    with pytest.raises(StorageError, match="was replaced"):
        stored.read(ByteRange(0, 4000), replace, version=None, stall=StallTimeout("slide", SOON))


def test_the_store_itself_is_told_which_version_is_wanted(far_file: StoragePath, proxy: Proxy) -> None:
    version = far_file.version()
    far_file.read_ranges(RANGES, version=version)
    assert {asked.version for asked in proxy.asked if asked.method == "GET"} == {f'"{version}"'}


def test_ranges_share_the_connections_that_are_there(far_file: StoragePath, proxy: Proxy) -> None:
    before = proxy.connections
    for _ in range(3):
        far_file.read_ranges([(at * 1000, 1000) for at in range(40)], version=None, threads=4, policy=SOON)
    assert proxy.connections - before <= 4


def test_ranges_wait_for_the_store_together(far_file: StoragePath, proxy: Proxy) -> None:
    version, ranges = far_file.version(), [(at * 1000, 1000) for at in range(64)]
    far_file.read_ranges(ranges, version=version)
    proxy.latency_s = 0.1
    started = time.monotonic()
    far_file.read_ranges(ranges, version=version)
    assert time.monotonic() - started < 64 * 0.1 / 4  # 16 at once: 0.4 s and some, against 6.4 s one by one
