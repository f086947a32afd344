"""Whole objects on this machine's disk: fetched once for all its processes, and bounded in bytes.

In the folder: `files/<key>.<ending>`, one per object and version, written aside and renamed; `locks/<key>`, held shared
while a file is in use and alone while it is fetched or removed; `lock`, held while room is made: the longest unused
file goes first. One that is being fetched has its whole size on the disk from the start, so the sum of the sizes counts
it, and a full disk is found out before a byte is asked for.
"""

import contextlib
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from raystp.errors import StorageError
from raystp.storage.download import download
from raystp.storage.local_file import sync_folder
from raystp.storage.locks import locked
from raystp.storage.names import TEMPORARY
from raystp.storage.patience import RETRY_POLICY, RetryPolicy
from raystp.storage.place import StoragePath
from raystp.storage.stored import ObjectInfo, StoredObject

KEY_DIGITS = 32
_ENDING = re.compile(r"\.[A-Za-z0-9]{1,8}")


@dataclass(frozen=True)
class NodeCache:
    """A folder of fetched objects, on a disk of this machine; all processes that name it share it."""

    folder: Path
    max_bytes: int
    """Kept at most, beside the files in use: those are never removed, even where they are more than this."""

    @contextlib.contextmanager
    def fetch(self, place: StoragePath, *, patience: RetryPolicy = RETRY_POLICY) -> Iterator[Path]:
        """Give a local path with the object's present content, which stays until the end of the `with`.

        A place on this machine is its own path. Raises StorageError where the object cannot be had whole.
        """
        if place.is_local:
            yield place.local_path
            return
        stored = place.stored(patience)
        seen = stored.look()
        file = self._files / f"{_key(stored, seen)}{_ending(place)}"
        with self._named(stored, seen):
            for folder in (self._files, self._locks):
                folder.mkdir(parents=True, exist_ok=True)
        try:
            with self._held(file, stored, seen):
                yield file
        finally:
            with self._named(stored, seen):
                self._make_room(0)

    @contextlib.contextmanager
    def _held(self, file: Path, stored: StoredObject, seen: ObjectInfo) -> Iterator[None]:
        """Hold the file against removal, fetching it first where it is absent."""
        while True:
            with contextlib.ExitStack() as stack:
                with self._named(stored, seen):
                    stack.enter_context(locked(self._lock_of(file), alone=False))
                    there = _is_whole(file, seen)
                    if there:
                        os.utime(file)
                if there:
                    yield
                    return
            with self._named(stored, seen), locked(self._lock_of(file), alone=True):
                if not _is_whole(file, seen):
                    self._fetch(file, stored, seen)

    def _fetch(self, file: Path, stored: StoredObject, seen: ObjectInfo) -> None:
        aside = self._files / f"{TEMPORARY}{file.stem}-{uuid.uuid4().hex}"
        try:
            self._reserve(aside, stored, seen)
            download(stored, seen, aside)
            with aside.open("rb") as whole:
                os.fsync(whole.fileno())
            with locked(self._lock, alone=True):  # whoever sums the sizes sees the one name or the other
                os.replace(aside, file)  # noqa: PTH105 -- the atomic rename, by its own name
            sync_folder(self._files)
        finally:
            aside.unlink(missing_ok=True)

    def _reserve(self, aside: Path, stored: StoredObject, seen: ObjectInfo) -> None:
        """Make room, and take it."""
        with locked(self._lock, alone=True):
            self._drop_leftovers()
            self._drop_longest_unused(seen.size)
            free = shutil.disk_usage(self._files).free
            if free < seen.size:
                raise self._full(stored, seen, free)
            with aside.open("xb") as file:
                if seen.size:
                    os.posix_fallocate(file.fileno(), 0, seen.size)

    def _make_room(self, count: int) -> None:
        with locked(self._lock, alone=True):
            self._drop_longest_unused(count)

    def _drop_longest_unused(self, count: int) -> None:
        """Remove files, the longest unused first, until `count` more bytes fit; those in use stay."""
        found = sorted(self._sizes())
        total = sum(size for _, size, _ in found)
        for _, size, path in found:
            if total + count <= self.max_bytes:
                return
            if not path.name.startswith(TEMPORARY) and self._drop(path, path.stem):
                total -= size

    def _sizes(self) -> Iterator[tuple[int, int, Path]]:
        """Give each file's time of last use, bytes and path."""
        for path in self._files.iterdir():
            with contextlib.suppress(FileNotFoundError):  # a fetch that failed takes its own away
                status = path.stat()
                yield status.st_mtime_ns, status.st_size, path

    def _drop_leftovers(self) -> None:
        """Remove what was being fetched by a process that died, and locks that no file has."""
        for path in self._files.glob(f"{TEMPORARY}*"):
            self._drop(path, path.name.removeprefix(TEMPORARY).partition("-")[0])
        kept = {path.stem for path in self._files.iterdir()}
        for lock in self._locks.iterdir():
            if lock.name not in kept:
                self._drop(None, lock.name)

    def _drop(self, path: Path | None, key: str) -> bool:
        """Remove a file and its lock, if nobody holds it; say whether it is gone."""
        with locked(self._locks / key, alone=True, wait=False) as held:
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

    def _full(self, stored: StoredObject, seen: ObjectInfo, free: int) -> StorageError:
        return StorageError(
            f"cannot keep {stored.shown} in the cache {self.folder}: it needs {seen.size:,} bytes, and {free:,} are "
            "free there; free some space, or name another folder"
        )

    @contextlib.contextmanager
    def _named(self, stored: StoredObject, seen: ObjectInfo) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            msg = (
                f"cannot keep {stored.shown} ({seen.size:,} bytes) in the cache {self.folder}: {error.strerror}; free "
                "some space there, or name another folder"
            )
            raise StorageError(msg) from error


def _key(stored: StoredObject, seen: ObjectInfo) -> str:
    """Return the name of one version of one object; two objects of the same name have two."""
    said = f"{stored.identity}\n{seen.version}\n{seen.size}"
    return hashlib.sha256(said.encode()).hexdigest()[:KEY_DIGITS]


def _ending(place: StoragePath) -> str:
    """Return the ending that readers of slides look at, if it is an ordinary one."""
    ending = Path(place.name).suffix.lower()
    return ending if _ENDING.fullmatch(ending) else ""


def _is_whole(file: Path, seen: ObjectInfo) -> bool:
    try:
        return file.stat().st_size == seen.size
    except FileNotFoundError:
        return False
