"""Digests of values and files, and cheap ids of the content of large files.

A fingerprint covers these instead of the names of files: a renamed file is the same input, a changed one is another.
"""

import hashlib
import json

from raystp.storage import StoragePath

DIGEST_BYTES = 8 << 20
"""Bytes of one read, which is one request to an object store."""

ID_EDGE = 1 << 20
"""Bytes at each end of a large file that its id covers."""

ABSENT_CONTENT = "absent"
"""The id of the content of a file that does not exist."""


def digest_of(values: object) -> str:
    """Return 16 hexadecimal digits for plain JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, allow_nan=False).encode()).hexdigest()[:16]


def digest(path: StoragePath) -> str:
    """Return the sha256 of a file's whole content, in hexadecimal."""
    total = hashlib.sha256()
    with path.open() as file:
        while block := file.read(DIGEST_BYTES):
            total.update(block)
    return total.hexdigest()


def content_id(path: StoragePath, *, edge: int = ID_EDGE) -> str:
    """Return an id of a large file from its size and its first and last `edge` bytes: cheap over a network.

    A file of equal size that differs only in its middle has the same id; file formats keep their tables at either end.
    The id of a folder covers the names and ids in it. An absent file has the id `absent`.
    """
    if not path.exists():
        return ABSENT_CONTENT
    if path.is_folder():
        text = json.dumps([[name, content_id(path / name, edge=edge)] for name in path.names()])
        return hashlib.sha256(text.encode()).hexdigest()[:16]
    return file_id(path, edge=edge)


def file_id(path: StoragePath, *, edge: int = ID_EDGE) -> str:
    """Return the `content_id` of a file or object. Raises StorageError if it cannot be read."""
    info = path.stored_object().info()
    size = info.size
    ranges = [(0, min(edge, size)), (max(0, size - edge), min(edge, size))]
    head, tail = path.read_ranges(ranges, version=info.version)
    return hashlib.sha256(str(size).encode() + head + tail).hexdigest()[:16]
