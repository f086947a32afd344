"""Places: a folder or file on this machine, or under s3:// or gs://, behind the same few verbs.

A write becomes visible whole or not at all: locally it is written aside and renamed, on an object store an upload
appears when it closes. Bulk goes through pyarrow's file systems; what these have no word for (write only where nothing
is, read one version) goes through `stored`.

Credentials and endpoints come from the standard places (environment, profile, the URI's own query); a place prints
without its query and without `key:secret@`, so none of them reaches a log.
"""

import contextlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from raystp.errors import StorageError
from raystp.storage.local_file import LocalFile
from raystp.storage.names import TEMPORARY
from raystp.storage.patience import RETRY_POLICY, RetryPolicy
from raystp.storage.stored import THREADS, ByteRange, StoredObject, read_spans

_REMOTE = re.compile(r"^[a-z][a-z0-9+.-]*://")


@dataclass(frozen=True)
class StoragePath:
    """One file or folder. `uri` is an absolute local path, or `s3://bucket/key` / `gs://bucket/key`."""

    uri: str

    @classmethod
    def of(cls, text: str | Path) -> "StoragePath":
        """Return the place that a path or URI names; a relative path is taken from the working directory."""
        text = str(text)
        if text.startswith("file://"):
            text = text.removeprefix("file://")
        return cls(text if _REMOTE.match(text) else str(Path(text).expanduser().absolute()))

    def __str__(self) -> str:
        return re.sub(r"^([^/]*//)[^/]*@", r"\1", self._parts()[0])

    def __repr__(self) -> str:
        return f"StoragePath({str(self)!r})"

    def __truediv__(self, name: str) -> "StoragePath":
        head, query = self._parts()
        return StoragePath(f"{head.rstrip('/')}/{name}{query}")

    def _parts(self) -> tuple[str, str]:
        """Return the address and the query with its mark; on this machine a `?` is a letter like any other."""
        head, mark, query = (self.uri, "", "") if self.is_local else self.uri.partition("?")
        return head, mark + query

    @property
    def parent(self) -> "StoragePath":
        """The folder that this is in."""
        head, query = self._parts()
        return StoragePath(f"{head.rstrip('/').rpartition('/')[0] or '/'}{query}")

    @property
    def name(self) -> str:
        """The last part of the path."""
        return str(self).rstrip("/").rpartition("/")[2]

    @property
    def is_local(self) -> bool:
        """Whether this is a path on this machine."""
        return not _REMOTE.match(self.uri)

    @property
    def local_path(self) -> Path:
        """The local path; raises StorageError for an object store's place."""
        if not self.is_local:
            msg = f"{self} is on an object store, a path on this machine was wanted"
            raise StorageError(msg)
        return Path(self.uri)

    def exists(self) -> bool:
        """Say whether there is a file or folder here."""
        return bool(self._info().type != pafs.FileType.NotFound)

    def is_folder(self) -> bool:
        """Say whether there is a folder here."""
        return bool(self._info().type == pafs.FileType.Directory)

    def size(self) -> int:
        """Return the file's size in bytes; raises StorageError where there is no file."""
        info = self._info()
        if info.type != pafs.FileType.File:
            msg = f"no file at {self}"
            raise StorageError(msg)
        return int(info.size)

    def names(self) -> list[str]:
        """Return the names in this folder, sorted; none where there is no folder. Files being written are left out."""
        fs, path = self._fs()
        with self._named("list"):
            found = fs.get_file_info(pafs.FileSelector(path, recursive=False, allow_not_found=True))
        return sorted(f.base_name for f in found if not f.base_name.startswith(TEMPORARY))

    def open(self) -> pa.NativeFile:
        """Open the file for random access; raises StorageError where there is none."""
        fs, path = self._fs()
        with self._named("read"):
            return fs.open_input_file(path)

    def read_bytes(self) -> bytes:
        """Return the file's content."""
        with self._named("read"), self.open() as file:
            return cast("bytes", file.read())

    def write_bytes(self, content: bytes) -> None:
        """Write the file; readers see the old content or the new, never a part."""
        if self.is_local:
            self.write_file(lambda path: path.write_bytes(content))
            return
        fs, path = self._fs()
        with self._named("write"), fs.open_output_stream(path) as file:
            file.write(content)

    def write_file(self, write: Callable[[Path], Any]) -> None:
        """Let `write` make a local file, then publish it here in one move."""
        if not self.is_local:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / self.name
                write(path)
                self.write_bytes(path.read_bytes())
            return
        with self._named("write"):
            self.local_path.parent.mkdir(parents=True, exist_ok=True)
            # The ending is kept: some writers (FAISS, h5ad, PNG) look at it.
            aside = self.local_path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}-{self.local_path.name}")
            try:
                write(aside)
                os.replace(aside, self.local_path)  # noqa: PTH105 -- the atomic rename, by its own name
            finally:
                aside.unlink(missing_ok=True)

    def read_table(self, columns: list[str] | None = None) -> pa.Table:
        """Read a parquet file."""
        with self._named("read"), self.open() as file:
            return pq.read_table(file, columns=columns)

    def read_schema(self) -> pa.Schema:
        """Read a parquet file's schema alone."""
        with self._named("read"), self.open() as file:
            return pq.read_schema(file)

    def write_table(self, table: pa.Table) -> None:
        """Write a parquet file (zstd), whole or not at all."""
        self.write_file(lambda path: pq.write_table(table, path, compression="zstd"))

    def write_new(self, content: bytes, *, patience: RetryPolicy = RETRY_POLICY) -> bool:
        """Write the file if nothing is here yet, and say whether that was so.

        Of many writers exactly one is told True, and readers see nothing or all of its content.
        """
        with self._named("write"):
            return self.stored(patience).put_new(content)

    def version(self, *, patience: RetryPolicy = RETRY_POLICY) -> str:
        """Return what changes whenever the file's content does; raises StorageError where there is no file."""
        with self._named("look at"):
            return self.stored(patience).look().version

    def read_range(
        self, offset: int, length: int, *, version: str | None, patience: RetryPolicy = RETRY_POLICY
    ) -> bytes:
        """Return `length` bytes from `offset` on.

        Raises StorageError where the file ends before that, is not of `version` (where one is given), or comes too
        slowly for the `patience`.
        """
        return self.read_ranges([(offset, length)], version=version, patience=patience)[0]

    def read_ranges(
        self,
        ranges: Sequence[tuple[int, int]],
        *,
        version: str | None,
        threads: int = THREADS,
        patience: RetryPolicy = RETRY_POLICY,
    ) -> list[bytes]:
        """Return each (offset, length) as `read_range` does, in their order; up to `threads` are asked for at once.

        All must fit in memory. The `patience` is with them together, and the first error ends them all.
        """
        parts: list[list[bytes]] = [[] for _ in ranges]
        spans = [ByteRange(offset, length) for offset, length in ranges]
        sinks = [contextlib.nullcontext(part.append) for part in parts]
        with self._named("read"):
            read_spans(self.stored(patience), spans, sinks, version=version, threads=threads)
        return [b"".join(part) for part in parts]

    def stored(self, patience: RetryPolicy = RETRY_POLICY) -> StoredObject:
        """Return this as one object of its kind of store, with the verbs that pyarrow's file systems lack."""
        scheme, _, _ = self.uri.partition("://")
        if self.is_local:
            return LocalFile(self.local_path, patience)
        if scheme == "s3":
            try:
                from raystp.storage.s3 import object as s3  # noqa: PLC0415 -- boto3 is an extra
            except ModuleNotFoundError as error:
                msg = f"conditional writes and reads by version need boto3 for {self}: pip install 'raystp[s3]'"
                raise StorageError(msg) from error
            return s3.open_object(self.uri, str(self), patience)
        if scheme in {"gs", "gcs"}:
            from raystp.storage import gs  # noqa: PLC0415 -- only who has such a store needs it

            return gs.open_object(self.uri, str(self), patience)
        msg = f"{self} is on no store that is known here: a path, s3:// or gs:// is wanted"
        raise StorageError(msg)

    @contextlib.contextmanager
    def local(self) -> Iterator[Path]:
        """Give a local path that holds this file's content: itself, or a download that goes away afterwards."""
        if self.is_local:
            yield self.local_path
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / self.name
            with self.open() as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            yield path

    def for_ray(self) -> dict[str, Any]:
        """Return this folder as Ray's run configs take it: `storage_path`, with a filesystem for an object store."""
        if self.is_local:
            return {"storage_path": self.uri}
        fs, path = self._fs()
        return {"storage_path": path, "storage_filesystem": fs}

    def remove(self) -> None:
        """Remove the file or folder, if there is one."""
        fs, path = self._fs()
        with self._named("remove"):
            kind = self._info().type
            if kind == pafs.FileType.Directory:
                fs.delete_dir(path)
            elif kind == pafs.FileType.File:
                fs.delete_file(path)

    def check_writable(self) -> None:
        """Raise StorageError, saying why, where nothing can be written under this folder."""
        probe = self / f"probe-{uuid.uuid4().hex}"
        try:
            probe.write_bytes(b"")
            probe.remove()
        except StorageError as error:
            reason = str(error).partition(f"{probe}: ")[2]
            msg = f"nothing can be written under {self}: {reason}; name another store with --set run.store=..."
            raise StorageError(msg) from error

    def _info(self) -> pafs.FileInfo:
        fs, path = self._fs()
        with self._named("look at"):
            return fs.get_file_info(path)

    def _fs(self) -> tuple[pafs.FileSystem, str]:
        if self.is_local:
            return pafs.LocalFileSystem(), self.uri
        with self._named("reach"):
            return cast("tuple[pafs.FileSystem, str]", pafs.FileSystem.from_uri(self.uri))

    @contextlib.contextmanager
    def _named(self, verb: str) -> Iterator[None]:
        """Turn what the operating system or the store says into a sentence with the place in it."""
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
            msg = f"cannot {verb} {self}: {reason.replace(self.uri, str(self))}"
            raise StorageError(msg) from error
