"""A stand-in for an object in a store: its local copies are files in a folder."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from raystp.storage import StoragePath
from raystp.storage.local_file import LocalFile
from raystp.storage.objects import StoredObject
from raystp.storage.retry import RETRY_POLICY, RetryPolicy


@dataclass(frozen=True)
class ObjectPath(StoragePath):
    """An object whose content is a file on this machine."""

    source: Path = Path()

    def stored_object(self, policy: RetryPolicy = RETRY_POLICY) -> StoredObject:
        return LocalFile(self.source, policy)

    @contextlib.contextmanager
    def local(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(shutil.copy(self.source, folder))


def as_object(path: Path) -> ObjectPath:
    """Return a file as an object of the same name."""
    return ObjectPath(f"s3://bucket/{path.name}", path)
