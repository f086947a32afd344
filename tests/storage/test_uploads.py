"""Uploads in parts that break off: readers see the old object or the new one, and a later upload works."""

import re

import numpy as np
import pytest

from raystp.errors import StorageError
from raystp.storage import StoragePath
from raystp.storage.remote import PART_BYTES
from tests.storage.fault_proxy import Proxy
from tests.storage.test_write_new import QUICK

pytestmark = [pytest.mark.slow, pytest.mark.faults]

LARGE = np.random.default_rng(3).bytes(2 * PART_BYTES + 1000)
"""Three parts."""


@pytest.mark.parametrize("has_old", [False, True])
@pytest.mark.parametrize(
    ("kind", "at", "method"),
    [("status", 503, "PUT"), ("status", 403, "PUT"), ("status", 500, "POST")],
    ids=["parts are not taken", "parts are refused", "the end is not taken"],
)
def test_an_upload_in_parts_that_breaks_off_changes_nothing_and_a_later_one_works(  # noqa: PLR0917 -- pytest passes by name
    kind: str, at: int, method: str, proxied: StoragePath, proxy: Proxy, *, has_old: bool
) -> None:
    path = proxied / "large.bin"
    if has_old:
        path.write_bytes(b"old")
    proxy.add(kind, at, method=method, code="SlowDown" if at == 503 else "Denied")
    with pytest.raises(StorageError, match=f"cannot write {re.escape(str(path))}: "):
        path.stored_object(QUICK).write(LARGE)
    proxy.clear()
    assert (proxied.files(), path.exists()) == ((["large.bin"], True) if has_old else ([], False))
    if has_old:
        assert path.read_bytes() == b"old"
    path.write_bytes(LARGE)
    assert path.read_bytes() == LARGE


def test_an_upload_in_parts_whose_last_response_is_lost_is_whole_or_an_error(
    proxied: StoragePath, proxy: Proxy
) -> None:
    path = proxied / "large.bin"
    proxy.add("lost", 500, method="POST", times=1)
    proxy.add("lost", 500, method="PUT", times=2)
    try:
        path.stored_object(QUICK).write(LARGE)
    except StorageError:
        path.write_bytes(LARGE)  # as the next run does
    assert path.read_bytes() == LARGE
    assert proxied.files() == ["large.bin"]
