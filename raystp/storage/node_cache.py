"""Whole objects on this machine's disk: each is downloaded once for all processes, within a limit of bytes.

The folder has `files/<key>.<ending>`, one for each object and version, written as a temporary file and renamed;
`locks/<key>`, held shared while a file is used and exclusively while it is downloaded or removed; `lock`, held while
room is made. The least recently used file is removed first. A file that is being downloaded has its whole size from
the start, so the sum of sizes includes it, and a full disk is an error before any byte is requested.
"""

import contextlib
import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from raystp.errors import StorageError
from raystp.storage.local_file import TEMPORARY, locked, sync_folder
from raystp.storage.objects import ObjectInfo, StoredObject, download
from raystp.storage.path import StoragePath
from raystp.storage.retry import RETRY_POLICY, RetryPolicy

KEY_DIGITS = 32
_ENDING = re.compile(r"\.[A-Za-z0-9]{1,8}")


@dataclass(frozen=True)
class NodeCache:
    """A folder of downloaded objects on a disk of this machine, shared by all processes that use the folder."""

    folder: Path
    max_bytes: int
    """The limit. Files in use are never removed, so together they may exceed it."""

    @contextlib.contextmanager
    def fetch(self, path: StoragePath, *, policy: RetryPolicy = RETRY_POLICY) -> Iterator[Path]:
        """Yield a local path with the object's present content, which is kept until the end of the `with`.

        A local path is yielded as it is. Raises StorageError if the object cannot be downloaded whole.
        """
        if path.is_local:
            yield path.local_path
            return
        stored = path.stored_object(policy)
        info = stored.info()
        file = self._files / f"{_key(stored, info)}{_ending(path)}"
        with self._disk_errors(stored, info):
            for folder in (self._files, self._locks):
                folder.mkdir(parents=True, exist_ok=True)
        try:
            with self._held(file, stored, info):
                yield file
        finally:
            with self._disk_errors(stored, info):
                self._make_room()

    @contextlib.contextmanager
    def _held(self, file: Path, stored: StoredObject, info: ObjectInfo) -> Iterator[None]:
        """Protect the file from removal; download it first if it is absent."""
        while True:
            with contextlib.ExitStack() as stack:
                with self._disk_errors(stored, info):
                    stack.enter_context(locked(self._lock_of(file), exclusive=False))
                    is_present = _is_whole(file, info)
                    if is_present:
                        now = time.time_ns()  # finer than the clock of the file system, which ticks every 4 ms
                        os.utime(file, ns=(now, now))
                if is_present:
                    yield
                    return
            with self._disk_errors(stored, info), locked(self._lock_of(file), exclusive=True):
                if not _is_whole(file, info):
                    self._download(file, stored, info)

    def _download(self, file: Path, stored: StoredObject, info: ObjectInfo) -> None:
        temporary = self._files / f"{TEMPORARY}{file.stem}-{uuid.uuid4().hex}"
        try:
            self._reserve(temporary, stored, info)
            download(stored, info, temporary)
            with temporary.open("rb") as whole:
                os.fsync(whole.fileno())
            with locked(self._lock, exclusive=True):  # a process that sums the sizes sees one of the two names
                os.replace(temporary, file)  # noqa: PTH105 -- the standard name of the atomic rename
            sync_folder(self._files)
        finally:
            temporary.unlink(missing_ok=True)

    def _reserve(self, temporary: Path, stored: StoredObject, info: ObjectInfo) -> None:
        """Make room for the object and allocate its size on the disk."""
        with locked(self._lock, exclusive=True):
            self._remove_leftovers()
            self._remove_least_recently_used(info.size)
            free = shutil.disk_usage(self._files).free
            if free < info.size:
                raise self._full(stored, info, free)
            with temporary.open("xb") as file:
                if info.size:
                    os.posix_fallocate(file.fileno(), 0, info.size)

    def _make_room(self) -> None:
        with locked(self._lock, exclusive=True):
            self._remove_least_recently_used(0)

    def _remove_least_recently_used(self, count: int) -> None:
        """Remove files, the least recently used first, until `count` more bytes fit; files in use stay."""
        found = sorted(self._sizes())
        total = sum(size for _, size, _ in found)
        for _, size, path in found:
            if total + count <= self.max_bytes:
                return
            if not path.name.startswith(TEMPORARY) and self._remove(path, path.stem):
                total -= size

    def _sizes(self) -> Iterator[tuple[int, int, Path]]:
        """Yield each file's time of last use, bytes and path."""
        for path in self._files.iterdir():
            with contextlib.suppress(FileNotFoundError):  # a failed download removes its file
                status = path.stat()
                yield status.st_mtime_ns, status.st_size, path

    def _remove_leftovers(self) -> None:
        """Remove the temporary files of processes that died, and the locks without a file."""
        for path in self._files.glob(f"{TEMPORARY}*"):
            self._remove(path, path.name.removeprefix(TEMPORARY).partition("-")[0])
        kept = {path.stem for path in self._files.iterdir()}
        for lock in self._locks.iterdir():
            if lock.name not in kept:
                self._remove(None, lock.name)

    def _remove(self, path: Path | None, key: str) -> bool:
        """Remove a file and its lock unless another process holds the lock; return whether they were removed."""
        with locked(self._locks / key, exclusive=True, wait=False) as held:
            if held:
                if path is not None:
                    path.unlink()
                (self._locks / key).unlink()
            return held

    @property
    def _lock(self) -> Path:
        return self.folder / "lock"

    @property
    def _files(self) -> Path:
        return self.folder / "files"

    @property
    def _locks(self) -> Path:
        return self.folder / "locks"

    def _lock_of(self, file: Path) -> Path:
        return self._locks / file.stem

    def _full(self, stored: StoredObject, info: ObjectInfo, free: int) -> StorageError:
        return StorageError(
            f"cannot keep {stored.shown} in the cache {self.folder}: it needs {info.size:,} bytes, and {free:,} are "
            "free; free some space, or choose another folder with --set run.cache=..."
        )

    @contextlib.contextmanager
    def _disk_errors(self, stored: StoredObject, info: ObjectInfo) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            msg = (
                f"cannot keep {stored.shown} ({info.size:,} bytes) in the cache {self.folder}: {error.strerror}; free "
                "some space there, or choose another folder with --set run.cache=..."
            )
            raise StorageError(msg) from error


def _key(stored: StoredObject, info: ObjectInfo) -> str:
    """Return the name of one version of one object; objects with equal names in different folders differ in it."""
    text = f"{stored.identity}\n{info.version}\n{info.size}"
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


def _ending(path: StoragePath) -> str:
    """Return the file name's ending if it is an ordinary one: readers of slides need it."""
    ending = Path(path.name).suffix.lower()
    return ending if _ENDING.fullmatch(ending) else ""


def _is_whole(file: Path, info: ObjectInfo) -> bool:
    try:
        return file.stat().st_size == info.size
    except FileNotFoundError:
        return False
