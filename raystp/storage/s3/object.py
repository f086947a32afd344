"""An object on S3, or on a store that speaks its language: one conditional PUT, and reads of one version by ETag."""

import base64
import hashlib
import re
import uuid
from dataclasses import dataclass, field
from typing import Any

from raystp.errors import StorageError
from raystp.storage.patience import RETRY_POLICY, RetryPolicy, StallTimeout
from raystp.storage.s3.address import ObjectAddress, read_address
from raystp.storage.s3.client import ANSWERED, AskAgain, answer, client, persist
from raystp.storage.stored import MARK, ByteRange, ObjectInfo, Sink, replaced

PIECE = 256 << 10
NOT_THERE, CONFLICT, CHANGED, BEYOND = 404, 409, 412, 416

_MD5 = re.compile(r"[0-9a-f]{32}")
_CHECKSUMS = {"crc32": "ChecksumCRC32", "sha256": "ChecksumSHA256", "sha1": "ChecksumSHA1"}
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True)
class S3Object:
    """One object; a version of it is its ETag."""

    shown: str
    address: ObjectAddress
    client: Any = field(repr=False)
    patience: RetryPolicy = RETRY_POLICY

    @property
    def identity(self) -> str:
        """Endpoint, bucket and key."""
        return f"{self.client.meta.endpoint_url}/{self.address.bucket}/{self.address.key}"

    def look(self) -> ObjectInfo:
        """Ask for the ETag, the size and the checksum."""
        found = persist(self._head, f"look at {self.shown}", patience=self.patience, watch=self._watch())
        return ObjectInfo(_version(found), int(found["ContentLength"]), _digest(found, self.address))

    def put_new(self, content: bytes) -> bool:
        """Send the object with `If-None-Match: *`, and ask again whose it is where an answer was lost."""
        mark = uuid.uuid4().hex
        md5 = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
        tries = 0

        def put() -> bool:
            nonlocal tries
            tries += 1
            try:
                self.client.put_object(
                    **self._name, Body=content, ContentMD5=md5, IfNoneMatch="*", Metadata={MARK: mark}
                )
            except ANSWERED as error:
                status, _ = answer(error)
                if status == CHANGED and tries == 1:
                    return False
                if status in {CHANGED, CONFLICT}:
                    return self._is_mine(mark)
                raise
            return True

        return persist(put, f"write {self.shown}", patience=self.patience, watch=self._watch())

    def read(self, span: ByteRange, sink: Sink, *, version: str | None, watch: StallTimeout) -> None:
        """Read one span; a try that breaks goes on where it ended, and always in the version it began with."""
        at, end, etag = span.offset, span.offset + span.length, version

        def ask() -> None:
            nonlocal at, etag
            found = self._get(ByteRange(at, end - at), etag)
            etag = _version(found)
            with found["Body"] as stream:
                # One system call a piece: a store that drips is seen while it does.
                while at < end and (piece := stream.read1(min(PIECE, end - at))):
                    sink(piece)
                    at += len(piece)
                    watch.arrived(len(piece))
                if at < end:
                    msg = f"the answer broke off at byte {at} of {end}"
                    raise AskAgain(msg)

        if span.length:
            persist(ask, f"read {self.shown}", patience=self.patience, watch=watch)

    @property
    def _name(self) -> dict[str, str]:
        return {"Bucket": self.address.bucket, "Key": self.address.key}

    def _watch(self) -> StallTimeout:
        return StallTimeout(self.shown, self.patience)

    def _head(self) -> Any:
        return self.client.head_object(**self._name, ChecksumMode="ENABLED")

    def _is_mine(self, mark: str) -> bool:
        """Say whether the object that is there is the one with this mark; asks again where there is none after all."""
        try:
            return bool(self._head()["Metadata"].get(MARK) == mark)
        except ANSWERED as error:
            if answer(error)[0] != NOT_THERE:
                raise
            msg = "the store took another's write or removal to come before it, and now holds nothing"
            raise AskAgain(msg) from None

    def _get(self, span: ByteRange, version: str | None) -> Any:
        """Ask for one span, and see that the answer is of it and of that version."""
        condition = {} if version is None else {"IfMatch": f'"{version}"'}
        last = span.offset + span.length - 1
        try:
            found = self.client.get_object(**self._name, Range=f"bytes={span.offset}-{last}", **condition)
        except ANSWERED as error:
            status, _ = answer(error)
            if status == CHANGED and version is not None:
                raise replaced(self.shown, version) from None
            if status == BEYOND:
                raise self._too_short(span) from None
            raise
        if version is not None and _version(found) != version:
            found["Body"].close()
            raise replaced(self.shown, version)
        self._check_range(found, span)
        return found

    def _check_range(self, found: Any, span: ByteRange) -> None:
        given = _RANGE.fullmatch(found.get("ContentRange", ""))
        if given and int(given[1]) == span.offset and int(found["ContentLength"]) == span.length:
            return
        found["Body"].close()
        if given and given[3] != "*" and int(given[3]) < span.offset + span.length:
            raise self._too_short(span)
        msg = (
            f"{span.length} bytes from byte {span.offset} on were asked for, and the store announces "
            f"{found['ContentLength']} bytes as {found.get('ContentRange', 'the whole object')!r}"
        )
        raise AskAgain(msg)

    def _too_short(self, span: ByteRange) -> StorageError:
        return StorageError(f"{self.shown} ends before byte {span.offset + span.length}, up to which it was asked for")


def open_object(uri: str, shown: str, patience: RetryPolicy) -> S3Object:
    """Return the object that an `s3://` URI names."""
    address = read_address(uri, shown)
    return S3Object(shown, address, client(address.door, patience), patience)


def _version(found: Any) -> str:
    return str(found["ETag"]).strip('"')


def _digest(found: Any, address: ObjectAddress) -> tuple[str, str] | None:
    """Return a checksum of the whole content: one that was stored with it, else the MD5 that many an ETag is."""
    if found.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT":
        for name, header in _CHECKSUMS.items():
            value = found.get(header, "")
            if value and "-" not in value:
                return name, base64.b64decode(value).hex()
    # Encrypted with keys of one's own, or on another maker's store at all, an ETag may be any 32 digits.
    plain = {None} if address.door.endpoint else {None, "AES256"}
    if found.get("ServerSideEncryption") not in plain or found.get("SSECustomerAlgorithm"):
        return None
    etag = _version(found)
    return ("md5", etag) if _MD5.fullmatch(etag) and not address.bucket.endswith("--x-s3") else None
