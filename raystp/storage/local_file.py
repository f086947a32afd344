"""A file on this machine as one object of a store: written once, read by version."""

import contextlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from raystp.errors import StorageError
from raystp.storage.names import TEMPORARY
from raystp.storage.patience import RETRY_POLICY, RetryPolicy, StallTimeout
from raystp.storage.stored import ByteRange, ObjectInfo, Sink, replaced

PIECE = 8 << 20


@dataclass(frozen=True)
class LocalFile:
    """One file; a version of it is its size and its time of change."""

    path: Path
    patience: RetryPolicy = RETRY_POLICY

    @property
    def shown(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def identity(self) -> str:
        """The path."""
        return str(self.path)

    def look(self) -> ObjectInfo:
        """Return what is there now."""
        if not self.path.is_file():
            msg = f"no file at {self.path}"
            raise StorageError(msg)
        found = self.path.stat()
        return ObjectInfo(_version(found), found.st_size, None)

    def put_new(self, content: bytes) -> bool:
        """Write aside, then link to the name, which fails where it is taken; on disk before it is seen."""
        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f"{TEMPORARY}{uuid.uuid4().hex}-{self.path.name}"
        try:
            with aside.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            try:
                self.path.hardlink_to(aside)
            except FileExistsError:
                # A network file system may have done it, lost its answer, and done it again: two names are ours.
                if aside.stat().st_nlink == 1:
                    return False
        finally:
            aside.unlink(missing_ok=True)
        sync_folder(folder)
        return True

    def read(self, span: ByteRange, sink: Sink, *, version: str | None, watch: StallTimeout) -> None:
        """Read one span, and see that the file was of that version before and after."""
        with contextlib.closing(self.path.open("rb", buffering=0)) as file:
            _same(self.shown, os.fstat(file.fileno()), version)
            at, end = span.offset, span.offset + span.length
            while at < end:
                piece = os.pread(file.fileno(), min(PIECE, end - at), at)
                if not piece:
                    msg = f"{self.path} ends at byte {at}, and bytes {span.offset} to {end} were asked for"
                    raise StorageError(msg)
                sink(piece)
                at += len(piece)
                watch.arrived(len(piece))
            _same(self.shown, os.fstat(file.fileno()), version)


def sync_folder(folder: Path) -> None:
    """Bring a folder's names onto the disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _version(found: os.stat_result) -> str:
    return f"{found.st_size}-{found.st_mtime_ns}"


def _same(shown: str, found: os.stat_result, version: str | None) -> None:
    if version is not None and _version(found) != version:
        raise replaced(shown, version)
