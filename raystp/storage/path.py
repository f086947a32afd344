"""Paths: a file or folder on this machine, or in an object store (`s3://`, `gs://`, `az://`), with the same methods.

A write becomes visible whole or not at all: locally a temporary file is renamed, and an object appears when its upload
ends. Whole files go through pyarrow's file systems. What those lack (put-if-absent, reads of one version, a stall
timeout) goes through `stored_object`.

Credentials and endpoints come from the usual sources (environment, profile, the URI's query). A path is printed without
its query and without `key:secret@`, so no secret gets into a log.
"""

import contextlib
import re
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from raystp.errors import StorageError, some
from raystp.storage.local_file import LocalFile
from raystp.storage.objects import THREADS, ByteRange, Kind, StoredObject, download, read_in_parallel
from raystp.storage.retry import RETRY_POLICY, RetryPolicy
from raystp.tables import parquet_options

_REMOTE = re.compile(r"^[a-z][a-z0-9+.-]*://")


@dataclass(frozen=True)
class StoragePath:
    """One file or folder. `uri` is an absolute local path, or a URI such as `s3://bucket/key`."""

    uri: str

    @classmethod
    def of(cls, text: str | Path) -> "StoragePath":
        """Return a path or URI as a StoragePath; a relative path starts at the working directory.

        A `file://` URI is the path that it quotes (`%20` is a space); in a path, `%`, `?` and `#` mean themselves.
        """
        text = str(text)
        scheme, separator, rest = text.partition("://")
        if scheme.lower() == "file" and separator:
            return cls(str(Path(unquote(rest.removeprefix("localhost"))).absolute()))
        text = f"{scheme.lower()}{separator}{rest}" if _REMOTE.match(text.lower()) else text
        if _REMOTE.match(text):
            return cls(text)
        path = Path(text).expanduser() if text == "~" or text.startswith("~/") else Path(text)  # not a file named ~x
        return cls(str(path.absolute()))

    def __str__(self) -> str:
        return re.sub(r"^([^/]*//)[^/]*@", r"\1", self._parts()[0])

    def __repr__(self) -> str:
        return f"StoragePath({str(self)!r})"

    def __truediv__(self, name: str) -> "StoragePath":
        head, query = self._parts()
        return StoragePath(f"{head.rstrip('/')}/{name}{query}")

    def with_query(self) -> str:
        """Return the path as text that `of` reads back, with its query and without `key:secret@`."""
        return f"{self}{self._parts()[1]}"

    def _parts(self) -> tuple[str, str]:
        """Return the address, and the query with its `?`; in a local path `?` is an ordinary character."""
        head, question_mark, query = (self.uri, "", "") if self.is_local else self.uri.partition("?")
        return head, question_mark + query

    @property
    def parent(self) -> "StoragePath":
        """The folder that contains it; of a bucket, and of the root of this machine, itself."""
        head, query = self._parts()
        if not self.is_local and "/" not in head.rstrip("/").partition("://")[2]:
            return self
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
        """The local path; raises StorageError for a path in an object store."""
        if not self.is_local:
            msg = f"{self} is in an object store; give a path on this machine"
            raise StorageError(msg)
        return Path(self.uri)

    def exists(self) -> bool:
        """Return whether there is a file or folder."""
        return self._kind() is not None

    def is_file(self) -> bool:
        """Return whether there is a file; in an object store one request, where `exists` may take two."""
        with self._named("look up"):
            return self.stored_object().is_file()

    def is_folder(self) -> bool:
        """Return whether there is a folder."""
        return self._kind() == "folder"

    def size(self) -> int:
        """Return the file's size in bytes; raises StorageError if there is no file."""
        with self._named("look up"):
            return self.stored_object().info().size

    def names(self) -> list[str]:
        """Return the sorted names in this folder, without unfinished files; empty if there is no folder."""
        with self._named("list"):
            return self.stored_object().names()

    def files(self) -> list[str]:
        """Return the sorted paths of all files in this folder and below it, relative to it; links are followed."""
        with self._named("list"):
            return sorted(self.stored_object().files())

    def open(self) -> pa.NativeFile:
        """Open the file for random access; raises StorageError if there is none."""
        with self._named("read"):
            return self.stored_object().open()

    def read_bytes(self) -> bytes:
        """Return the file's content."""
        with self._named("read"), self.open() as file:
            return cast("bytes", file.read())

    def write_bytes(self, content: bytes) -> None:
        """Write the file; readers see the old content or the new content, never a part."""
        with self._named("write"):
            self.stored_object().write(content)

    def write_file(self, write: Callable[[Path], object]) -> None:
        """Let `write` make a temporary local file, then move or upload it here."""
        with self._named("write"):
            self.stored_object().write_file(write)

    def read_table(
        self, columns: list[str] | None = None, check: Callable[[pa.Schema, int], None] | None = None
    ) -> pa.Table:
        """Read a parquet file; `check` gets its schema and number of rows before a value is read.

        Raises StorageError for a column of `columns` that the file does not have.
        """
        with self._named("read"), self.open() as file:
            parquet = pq.ParquetFile(file, pre_buffer=True)
            if check is not None:
                check(parquet.schema_arrow, parquet.metadata.num_rows)
            names = parquet.schema_arrow.names
            if absent := [name for name in columns or () if name not in names]:  # pyarrow leaves these out
                msg = f"cannot read {self}: it has no column {some(absent)}; its columns are {some(names)}"
                raise StorageError(msg)
            return parquet.read(columns)

    def read_schema(self) -> pa.Schema:
        """Read only the schema of a parquet file."""
        with self._named("read"), self.open() as file:
            return pq.read_schema(file)

    def write_table(self, table: pa.Table) -> None:
        """Write a parquet file (zstd), whole or not at all."""
        options = parquet_options(table.schema)
        self.write_file(lambda path: pq.write_table(table, path, compression="zstd", **options))

    def write_new(self, content: bytes, *, policy: RetryPolicy = RETRY_POLICY) -> bool:
        """Write the file if it is absent (put-if-absent); return whether it was.

        Of many writers exactly one gets True. Readers see nothing or the whole content.
        """
        with self._named("write"):
            return self.stored_object(policy).put_new(content)

    def version(self, *, policy: RetryPolicy = RETRY_POLICY) -> str:
        """Return a version that changes whenever the content does; raises StorageError if there is no file."""
        with self._named("look up"):
            return self.stored_object(policy).info().version

    def read_range(self, offset: int, length: int, *, version: str | None, policy: RetryPolicy = RETRY_POLICY) -> bytes:
        """Return `length` bytes from `offset` on.

        Raises StorageError if the file ends before that, is not of `version` (if one is given), or comes more slowly
        than `policy` allows.
        """
        return self.read_ranges([(offset, length)], version=version, policy=policy)[0]

    def read_ranges(
        self,
        ranges: Sequence[tuple[int, int]],
        *,
        version: str | None,
        threads: int = THREADS,
        policy: RetryPolicy = RETRY_POLICY,
    ) -> list[bytes]:
        """Return the bytes of each (offset, length) in that order, as `read_range`; up to `threads` requests at once.

        All must fit in memory. The stall timeout covers all of them, and the first error stops them.
        """
        parts: list[list[bytes]] = [[] for _ in ranges]
        spans = [ByteRange(offset, length) for offset, length in ranges]
        sinks = [contextlib.nullcontext(part.append) for part in parts]
        with self._named("read"):
            read_in_parallel(self.stored_object(policy), spans, sinks, version=version, threads=threads)
        return [b"".join(part) for part in parts]

    def stored_object(self, policy: RetryPolicy = RETRY_POLICY) -> StoredObject:
        """Return this as one object of its store, with the operations that pyarrow's file systems lack."""
        if self.is_local:
            return LocalFile(self.local_path, policy)
        from raystp.storage.remote import open_object  # noqa: PLC0415 -- it takes 0.2 s, and local stores need none of it

        return open_object(self.uri, str(self), policy)

    @contextlib.contextmanager
    def local(self) -> Iterator[Path]:
        """Yield a local path with this file's content: itself, or a temporary download."""
        if self.is_local:
            yield self.local_path
            return
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / self.name
            file.touch()
            stored = self.stored_object()
            with self._named("read"):
                download(stored, stored.info(), file)
            yield file

    def for_ray(self) -> dict[str, Any]:
        """Return this folder as arguments of Ray's run configs: a path, and a file system for an object store."""
        if self.is_local:
            return {"storage_path": self.uri}
        from raystp.storage.stores import ray_filesystem  # noqa: PLC0415 -- as in `stored_object`

        with self._named("open"):
            filesystem, path = ray_filesystem(self.uri, str(self))
        return {"storage_path": path, "storage_filesystem": filesystem}

    def remove(self) -> None:
        """Remove the file or folder if it exists."""
        with self._named("remove"):
            self.stored_object().remove()

    def remove_file(self) -> None:
        """Remove the file if it exists; in an object store one request, where `remove` takes two."""
        with self._named("remove"):
            self.stored_object().remove_file()

    def check_writable(self, name: str = "store", field: str = "run.store") -> None:
        """Raise StorageError, with the reason and the field that names it, if this folder is not writable."""
        probe = self / f"probe-{uuid.uuid4().hex}"
        try:
            probe.write_bytes(b"")
            probe.remove()
        except StorageError as error:
            reason = str(error).partition(f"{probe}: ")[2]
            msg = f"the {name} {self} is not writable: {reason}; choose another one with --set {field}=..."
            raise StorageError(msg) from error

    def _kind(self) -> Kind | None:
        with self._named("look up"):
            return self.stored_object().kind()

    @contextlib.contextmanager
    def _named(self, verb: str) -> Iterator[None]:
        """Turn an error of the operating system or the store into a StorageError with this path."""
        try:
            yield
        except (OSError, pa.ArrowException, UnicodeEncodeError) as error:  # a name with half of a surrogate pair
            reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
            reason = re.sub(r".*Detail: \[errno \d+\] ", "", reason)  # Arrow names the file once more
            msg = f"cannot {verb} {self}: {reason.replace(self.uri, str(self))}"
            raise StorageError(msg) from error
