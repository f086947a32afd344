"""Objects and folders on S3, Google Cloud Storage and Azure, through obstore.

An object's version is its ETag. obstore's own retries have no deadline for a whole object, so reads and put-if-absent
go without them: `retry` repeats those requests and counts all of them against one `StallTimeout`.
"""

import contextlib
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

import obstore
import pyarrow as pa
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from raystp.errors import StorageError
from raystp.storage import aws
from raystp.storage.endpoint import ObjectAddress, parse_uri
from raystp.storage.local_file import TEMPORARY
from raystp.storage.objects import ByteRange, Kind, ObjectInfo, RangeFile, Sink, replaced
from raystp.storage.retry import RETRY_POLICY, RetryPolicy, StallTimeout, TransientError, UnreachableError, retry
from raystp.storage.store_errors import BEYOND_END, CHANGED, is_other_range, response, translate
from raystp.storage.stores import OpenStore, open_store

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, ObjectMeta

WRITER = "raystpwriter"
"""Metadata that tells our own write from another's after a lost response; Azure allows letters and digits alone."""
PART_BYTES, PARTS = 8 << 20, 9_000
"""Least bytes of a part of an upload, and most parts; stores accept 10,000."""
UPLOADS = 4
"""Parts uploaded at once; with more, each of them may time out on a slow network."""

_ANSWERED: set[str] = set()
"""Servers that have answered this process."""

T = TypeVar("T")


@dataclass(frozen=True)
class RemoteObject:
    """One object, or one folder: the objects whose keys begin with its key and `/`."""

    shown: str
    address: ObjectAddress
    opened: OpenStore = field(repr=False)
    policy: RetryPolicy = RETRY_POLICY

    @property
    def identity(self) -> str:
        """Server, bucket and key."""
        return f"{self.opened.server}/{self.address.bucket}/{self.address.key}"

    @property
    def _key(self) -> str:
        if not self.address.key:
            msg = f"{self.shown} is a bucket; an object has a key too, as in {self.shown.rstrip('/')}/folder/file"
            raise StorageError(msg)
        return self.address.key

    def info(self) -> ObjectInfo:
        """Request the ETag and the size."""
        meta = self._retry("look up", lambda: obstore.head(self.opened.store, self._key))
        return ObjectInfo(self._version(meta), meta["size"])

    def checksum(self, version: str) -> tuple[str, str] | None:
        """Return the checksum that S3 stores; obstore reports none of the other stores'."""
        if self.address.endpoint.store != "s3":
            return None
        return self._retry("look up", lambda: aws.stored_checksum(self.address, version, self.policy))

    def kind(self) -> Kind | None:
        """Return what is there; a folder is there if an object is in it."""
        if not self.address.key or self.is_file():
            return "file" if self.address.key else "folder"

        def look() -> Kind | None:
            first = obstore.list(self.opened.store, f"{self.address.key}/", chunk_size=1)
            return "folder" if next(iter(first), None) else None

        return self._retry("look up", look)

    def is_file(self) -> bool:
        """Return whether the object is there, with one request."""

        def look() -> bool:
            with contextlib.suppress(FileNotFoundError):
                obstore.head(self.opened.store, self._key)
                return True
            return False

        return self._retry("look up", look)

    def names(self) -> list[str]:
        """Return the sorted names in the folder, without unfinished files; empty if there is no folder."""

        def look() -> list[str]:
            found = obstore.list_with_delimiter(self.opened.store, f"{self.address.key}/" if self.address.key else None)
            return [*found["common_prefixes"], *(meta["path"] for meta in found["objects"])]

        found = self._retry("list", look)
        names = {path.rstrip("/").rpartition("/")[2] for path in found if path != self.address.key}
        return sorted(name for name in names if not name.startswith(TEMPORARY))

    def files(self) -> list[str]:
        """Return the keys of all objects below the folder, relative to it, without those that stand for a folder."""
        prefix = f"{self.address.key}/" if self.address.key else ""

        def look() -> list[tuple[str, int]]:
            listed = obstore.list(self.opened.store, prefix or None, chunk_size=1000)
            return [(meta["path"], meta["size"]) for chunk in listed for meta in chunk]

        found = self._retry("list", look)
        names = {path for path, size in found if size}
        empty = {path for path, _ in found} - names
        folders = {self.address.key, *(str(one) for path in names if empty for one in PurePosixPath(path).parents)}
        names |= {path for path in empty - folders if self._is_object(path)}
        return [path.removeprefix(prefix) for path in names if not path.rpartition("/")[2].startswith(TEMPORARY)]

    def _is_object(self, path: str) -> bool:
        """Return whether an empty object has this key, and not the key with a slash, as other tools mark a folder."""

        def look() -> bool:
            with contextlib.suppress(FileNotFoundError):
                obstore.head(self.opened.store, path)
                return True
            return False

        return self._retry("look up", look)

    def open(self) -> pa.NativeFile:
        """Open the object for random access: each read is a request, or some in parallel."""
        return pa.PythonFile(RangeFile(self, self.info()), mode="r")

    def write(self, content: bytes) -> None:
        """Upload the object; it appears when all of it is there."""
        self._upload(content, len(content))

    def write_file(self, write: Callable[[Path], object]) -> None:
        """Let `write` fill a temporary local file, then upload it."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / self._key.rpartition("/")[2]
            write(file)
            self._upload(file, file.stat().st_size)

    def _upload(self, content: bytes | Path, size: int) -> None:
        """Upload, a large object in parts."""
        part_bytes = max(PART_BYTES, size // PARTS)

        def put() -> None:
            obstore.put(self.opened.transfers, self._key, content, chunk_size=part_bytes, max_concurrency=UPLOADS)

        self._once("write", put)

    def remove(self) -> None:
        """Remove the object or all objects of the folder."""

        def remove() -> None:
            store, key = self.opened.transfers, self._key
            found = [meta["path"] for chunk in obstore.list(store, f"{key}/", chunk_size=1000) for meta in chunk]
            try:
                obstore.delete(store, found or key)
            except FileNotFoundError:
                return

        self._once("remove", remove)

    def remove_file(self) -> None:
        """Remove the object, if it is there, with one request."""

        def remove() -> None:
            with contextlib.suppress(FileNotFoundError):
                obstore.delete(self.opened.transfers, self._key)

        self._once("remove", remove)

    def put_new(self, content: bytes) -> bool:
        """Write on the condition that the object is absent; after a lost response look up whose write it was."""
        writer, attempts = uuid.uuid4().hex, 0

        def put() -> bool:
            nonlocal attempts
            attempts += 1
            try:
                obstore.put(self.opened.store, self._key, content, mode="create", attributes={WRITER: writer})
            except AlreadyExistsError as error:
                if response(error)[0] == CHANGED and attempts == 1:
                    return False
                return self._is_written_by(writer)
            return True

        return self._retry("write", put)

    def read(self, span: ByteRange, sink: Sink, *, version: str | None, stall: StallTimeout) -> None:
        """Read one range; a retry continues at the next byte, in the version of the first attempt."""
        position, etag = span.offset, version

        def attempt() -> None:
            nonlocal position, etag
            rest = ByteRange(position, span.end - position)
            result, etag = self._get(rest, etag)
            # Each piece is what has arrived, so a slow store is seen at every byte.
            for piece in result.stream(min_chunk_size=1):
                if position + len(piece) > span.end:
                    msg = f"the response is longer than its {rest.length} bytes"
                    raise TransientError(msg)
                sink(piece)
                position += len(piece)
                stall.add_bytes(len(piece))
            if position < span.end:
                msg = f"the response ended at byte {position} of {span.end}"
                raise TransientError(msg)

        if span.length:
            self._retry("read", attempt, stall)

    def _get(self, span: ByteRange, version: str | None) -> "tuple[GetResult, str]":
        """Request one range; raises StorageError if it is not of `version` or passes the object's end."""
        options: GetOptions = {"range": (span.offset, span.end)}
        if version is not None:
            options["if_match"] = f'"{version}"'
        try:
            result = obstore.get(self.opened.store, self._key, options=options)
        except PreconditionError:
            raise replaced(self.shown, str(version)) from None
        except BaseError as error:
            if response(error)[0] == BEYOND_END:
                raise self._too_short(span) from None
            if is_other_range(error):
                msg = f"bytes {span.offset} to {span.end} were requested, and the store sent another range"
                raise TransientError(msg) from None
            raise
        found = self._version(result.meta)
        if version is not None and found != version:
            raise replaced(self.shown, version)
        if result.range != (span.offset, span.end):
            raise self._too_short(span)
        return result, found

    def _is_written_by(self, writer: str) -> bool:
        try:
            found = obstore.get(self.opened.store, self._key, options={"head": True})
        except FileNotFoundError:
            msg = "the store reported a conflict, and now has no such object"
            raise TransientError(msg) from None
        return found.attributes.get(WRITER) == writer

    def _retry(self, verb: str, attempt: Callable[[], T], stall: StallTimeout | None = None) -> T:
        """Repeat `attempt` after transient failures; turn every other failure into a StorageError."""
        action = f"{verb} {self.shown}"
        stall = stall or StallTimeout(self.shown, self.policy)
        return retry(lambda: self._attempt(attempt, action), action, policy=self.policy, stall=stall)

    def _once(self, verb: str, work: Callable[[], None]) -> None:
        """Do what obstore itself retries, for less than a network is cut; turn a failure into a StorageError."""
        action = f"{verb} {self.shown}"

        def attempt() -> None:
            try:
                self._attempt(work, action)
            except UnreachableError:
                raise
            except TransientError as error:
                msg = f"cannot {action}: {error}"
                raise StorageError(msg) from None

        retry(attempt, action, policy=self.policy, stall=StallTimeout(self.shown, self.policy))

    def _attempt(self, work: Callable[[], T], action: str) -> T:
        """Do something once, and note that the store answers."""
        server = self.opened.server
        try:
            found = work()
        except (BaseError, FileNotFoundError) as error:
            failure = translate(error, action, answered=server in _ANSWERED)
            if response(error)[0]:
                _ANSWERED.add(server)
            raise failure from None
        _ANSWERED.add(server)
        return found

    def _version(self, meta: "ObjectMeta") -> str:
        if not meta["e_tag"]:
            msg = f"the store gives no ETag of {self.shown}, so its versions cannot be told apart"
            raise StorageError(msg)
        return meta["e_tag"].strip('"')

    def _too_short(self, span: ByteRange) -> StorageError:
        return StorageError(f"{self.shown} ends before byte {span.end}, the end of the requested range")


def open_object(uri: str, shown: str, policy: RetryPolicy) -> RemoteObject:
    """Return the object of an `s3://`, `gs://` or `az://` URI; raises StorageError if it cannot be opened."""
    address = parse_uri(uri, shown)
    return RemoteObject(shown, address, open_store(address.endpoint, address.bucket, policy), policy)
