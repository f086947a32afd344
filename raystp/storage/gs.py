"""An object on Google Cloud Storage, through gcsfs: one conditional upload, and reads of one generation.

No test reaches Google Cloud Storage. What is here follows its documented conditions (`ifGenerationMatch=0`,
`generation`). gcsfs is no dependency of raystp, and a sentence asks for it where it is missing.
"""

import base64
import contextlib
import importlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from raystp.errors import StorageError
from raystp.storage.patience import RETRY_POLICY, RetryPolicy, StallTimeout
from raystp.storage.stored import MARK, ByteRange, ObjectInfo, Sink, replaced

PIECE = 4 << 20
"""What one request fetches: gcsfs gives the whole of an answer, so this is how fine its progress is seen."""


@dataclass(frozen=True)
class GsObject:
    """One object; a version of it is its generation."""

    shown: str
    path: str
    """Bucket and key."""
    fs: Any = field(repr=False)
    patience: RetryPolicy = RETRY_POLICY

    @property
    def identity(self) -> str:
        """Bucket and key."""
        return f"gs://{self.path}"

    def look(self) -> ObjectInfo:
        """Ask for the generation, the size and the MD5."""
        with self._named("look at"):
            found = self.fs.info(self.path, timeout=self.patience.without_progress_s)
        if found["type"] != "file":
            msg = f"no file at {self.shown}"
            raise StorageError(msg)
        md5 = found.get("md5Hash")
        digest = ("md5", base64.b64decode(md5).hex()) if md5 else None
        return ObjectInfo(str(found["generation"]), int(found["size"]), digest)

    def put_new(self, content: bytes) -> bool:
        """Upload on the condition that there is no generation yet; where one is found, look whether it is our own.

        gcsfs asks again by itself after a lost answer, so the refusal may be of its second try.
        """
        mark, wait_s = uuid.uuid4().hex, self.patience.without_progress_s
        with self._named("write"):
            try:
                self.fs.pipe_file(self.path, content, mode="create", metadata={MARK: mark}, timeout=wait_s)
            except FileExistsError:
                return bool(self.fs.info(self.path, timeout=wait_s).get("metadata", {}).get(MARK) == mark)
        return True

    def read(self, span: ByteRange, sink: Sink, *, version: str | None, watch: StallTimeout) -> None:
        """Read one span, in pieces of one generation."""
        at, end = span.offset, span.offset + span.length
        generation = version if version is not None or not span.length else self.look().version
        while at < end:
            watch.check()
            upto = min(end, at + PIECE)
            with self._named("read", generation):
                piece = self.fs.cat_file(
                    self.path, start=at, end=upto, generation=generation, timeout=self.patience.without_progress_s
                )
            if len(piece) != upto - at:
                msg = f"{self.shown} gave {len(piece)} bytes from byte {at} on, and {upto - at} were asked for"
                raise StorageError(msg)
            sink(piece)
            at = upto
            watch.arrived(len(piece))

    @contextlib.contextmanager
    def _named(self, verb: str, version: str | None = None) -> Iterator[None]:
        """Turn what gcsfs raises into a sentence; its own text may hold a URL, so only the kind of it is shown."""
        try:
            yield
        except FileNotFoundError:
            if version is not None:
                raise replaced(self.shown, version) from None
            msg = f"cannot {verb} {self.shown}: there is no such object"
            raise StorageError(msg) from None
        except _raised() as error:
            code = getattr(error, "code", "")
            msg = f"cannot {verb} {self.shown}: {type(error).__name__} {code}".rstrip()
            raise StorageError(msg) from None


def open_object(uri: str, shown: str, patience: RetryPolicy) -> GsObject:
    """Return the object that a `gs://` URI names; raises StorageError where gcsfs is missing."""
    try:
        core = importlib.import_module("gcsfs.core")
    except ModuleNotFoundError:
        msg = (
            f"{shown} is on Google Cloud Storage, and writing only where nothing is yet and reading by version go "
            "through gcsfs there: pip install gcsfs"
        )
        raise StorageError(msg) from None
    parts = urlsplit(uri)
    asked = dict(parse_qsl(parts.query))
    authority, _, bucket = parts.netloc.rpartition("@")
    ways: dict[str, Any] = {"use_listings_cache": False}
    if authority == "anonymous":
        ways["token"] = "anon"
    if "endpoint_override" in asked:
        ways["endpoint_url"] = f"{asked.get('scheme', 'https')}://{asked['endpoint_override']}"
    return GsObject(shown, f"{bucket}/{unquote(parts.path).strip('/')}", core.GCSFileSystem(**ways), patience)


def _raised() -> tuple[type[Exception], ...]:
    """Return what gcsfs raises; its own modules are there once an object is."""
    return (
        OSError,
        ValueError,
        importlib.import_module("gcsfs.retry").HttpError,
        importlib.import_module("aiohttp").ClientError,
        importlib.import_module("google.auth.exceptions").GoogleAuthError,
    )
