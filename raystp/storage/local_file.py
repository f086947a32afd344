"""Files on this machine: names, atomic writes, reads of one version, and locks between processes."""

import contextlib
import fcntl
import logging
import os
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from raystp.errors import StorageError
from raystp.storage.objects import ByteRange, Kind, ObjectInfo, Sink, replaced
from raystp.storage.retry import RETRY_POLICY, RetryPolicy, StallTimeout

logger = logging.getLogger("raystp")

TEMPORARY = ".aside-"
"""Prefix of the name of an unfinished file; such files are never listed."""

READ_BYTES = 8 << 20
_FILES = pafs.LocalFileSystem()
_SAFE_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


def is_safe_name(name: str) -> bool:
    """Return whether a slide or section id can be a file name: letters, digits, `.`, `_`, `-`, and not dots alone."""
    return bool(_SAFE_NAME.fullmatch(name)) and set(name) != {"."} and not name.startswith(TEMPORARY)


@dataclass(frozen=True)
class LocalFile:
    """One file or folder; the version of a file is its size and modification time."""

    path: Path
    policy: RetryPolicy = RETRY_POLICY

    @property
    def shown(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def identity(self) -> str:
        """The path."""
        return str(self.path)

    def info(self) -> ObjectInfo:
        """Return the present version and size."""
        if not self.path.is_file():
            msg = f"no file at {self.path}"
            raise StorageError(msg)
        status = self.path.stat()
        return ObjectInfo(_version(status), status.st_size)

    def checksum(self, version: str) -> None:
        """Return None: file systems store no checksum."""

    def kind(self) -> Kind | None:
        """Return what is there; None if nothing is."""
        found = _FILES.get_file_info(str(self.path)).type
        if found == pafs.FileType.Directory:
            return "folder"
        return "file" if found == pafs.FileType.File else None

    def is_file(self) -> bool:
        """Return whether there is a file."""
        return self.kind() == "file"

    def names(self) -> list[str]:
        """Return the sorted names in the folder, without unfinished files; empty if there is no folder."""
        found = _FILES.get_file_info(pafs.FileSelector(str(self.path), recursive=False, allow_not_found=True))
        return sorted(one.base_name for one in found if not one.base_name.startswith(TEMPORARY))

    def files(self) -> list[str]:
        """Return the paths of all files below the folder; a folder that a link leads to twice is listed once.

        A folder that cannot be listed is left out, with a warning.
        """
        found, seen = [], set()
        for folder, folders, names in os.walk(self.path, onerror=_warn, followlinks=True):
            status = os.stat(folder)  # noqa: PTH116 -- as os.walk gives it
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            inner = os.path.relpath(folder, self.path)
            kept = [name for name in names if not name.startswith(TEMPORARY)]
            found += kept if inner == "." else [f"{inner}/{name}" for name in kept]
        return found

    def open(self) -> pa.NativeFile:
        """Open the file for random access."""
        return _FILES.open_input_file(str(self.path))

    def write(self, content: bytes) -> None:
        """Write the file whole."""
        self.write_file(lambda path: path.write_bytes(content))

    def write_file(self, write: Callable[[Path], object]) -> None:
        """Let `write` fill a temporary file, then rename it; the folder is created."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary_path(self.path)
        try:
            write(temporary)
            os.replace(temporary, self.path)  # noqa: PTH105 -- the standard name of the atomic rename
        finally:
            temporary.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the file or the folder, if it is there."""
        kind = self.kind()
        if kind == "folder":
            _FILES.delete_dir(str(self.path))
        elif kind == "file":
            _FILES.delete_file(str(self.path))

    def remove_file(self) -> None:
        """Remove the file, if it is there."""
        self.path.unlink(missing_ok=True)

    def put_new(self, content: bytes) -> bool:
        """Write a temporary file, then link it to the name, which fails if the name exists; synced to disk."""
        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        temporary = _temporary_path(self.path)
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            try:
                self.path.hardlink_to(temporary)
            except FileExistsError:
                # A network file system may link, lose the response, and link again: then both names are ours.
                if temporary.stat().st_nlink == 1:
                    return False
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(folder)
        return True

    def read(self, span: ByteRange, sink: Sink, *, version: str | None, stall: StallTimeout) -> None:
        """Read one range; the version is checked before and after."""
        with contextlib.closing(self.path.open("rb", buffering=0)) as file:
            _check_version(self.shown, os.fstat(file.fileno()), version)
            position = span.offset
            while position < span.end:
                piece = os.pread(file.fileno(), min(READ_BYTES, span.end - position), position)
                if not piece:
                    msg = f"{self.path} ends at byte {position}; bytes {span.offset} to {span.end} were requested"
                    raise StorageError(msg)
                sink(piece)
                position += len(piece)
                stall.add_bytes(len(piece))
            _check_version(self.shown, os.fstat(file.fileno()), version)


def _temporary_path(path: Path) -> Path:
    """Return a new path in the same folder; it ends as `path`, because some writers choose the format by the ending."""
    return path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}-{path.name}")


def sync_folder(folder: Path) -> None:
    """Write a folder's names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path, *, exclusive: bool, wait: bool = True) -> Iterator[bool]:
    """Hold a lock that processes and threads of one machine share; yield whether it is held.

    It is `flock` on a file of its own, which the kernel releases when the holder dies. Not for network file systems.
    False is yielded only if `wait` is False and another holds the lock. The holder of an exclusive lock may remove the
    file: those who wait for the removed file then wait for the new one.
    """
    operation = (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(descriptor, operation)
            except BlockingIOError:
                yield False
                return
            if _is_same_file(path, descriptor):
                yield True
                return
        finally:
            os.close(descriptor)


def _warn(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        logger.warning(f"  {error.filename} cannot be listed ({error.strerror}): its files are left out")


def _is_same_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _version(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"


def _check_version(shown: str, status: os.stat_result, version: str | None) -> None:
    if version is not None and _version(status) != version:
        raise replaced(shown, version)
