"""A lock is exclusive or shared, survives the removal of its file, and is released when its holder dies."""

import signal
import threading
from pathlib import Path

from raystp.storage.local_file import locked
from tests.storage.conftest import child

HOLD = """
import sys, time, pathlib
from raystp.storage.local_file import locked
with locked(pathlib.Path(sys.argv[1]), exclusive=True):
    print("held", flush=True)
    time.sleep(60)
"""


def test_readers_share_a_lock_and_a_writer_excludes_them(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with locked(lock, exclusive=False) as first, locked(lock, exclusive=False) as second:
        assert first
        assert second
        with locked(lock, exclusive=True, wait=False) as held:
            assert not held
    with locked(lock, exclusive=True, wait=False) as held:
        assert held
        with locked(lock, exclusive=False, wait=False) as other:
            assert not other


def test_a_process_that_waited_for_a_removed_lock_gets_the_new_one(tmp_path: Path) -> None:
    lock, held = tmp_path / "lock", threading.Event()

    def wait() -> None:
        with locked(lock, exclusive=True):
            held.set()
            assert lock.exists()

    with locked(lock, exclusive=True):
        waiter = threading.Thread(target=wait)
        waiter.start()
        assert not held.wait(0.2)
        lock.unlink()
    waiter.join(10)
    assert held.is_set()


def test_a_killed_holder_releases_the_lock(tmp_path: Path) -> None:
    holder = child(HOLD, str(tmp_path / "lock"))
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with locked(tmp_path / "lock", exclusive=True, wait=False) as held:
        assert not held
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with locked(tmp_path / "lock", exclusive=True, wait=False) as held:
        assert held
