"""The XML of S3's requests and responses, as far as `endpoint` knows them."""

import re
from collections.abc import Sequence
from html import escape, unescape

_KEY = re.compile(rb"<Key>([^<]*)</Key>")


def keys_to_delete(body: bytes) -> list[str]:
    """Return the keys of a request that deletes many objects."""
    return [unescape(key.decode()) for key in _KEY.findall(body)]


def deleted(keys: Sequence[str]) -> bytes:
    """Return the response to it."""
    return _xml("DeleteResult", "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys))


def error(code: str) -> bytes:
    """Return the body of an error."""
    return _xml("Error", f"<Code>{code}</Code><Message></Message>")


def started(upload: str) -> bytes:
    """Return the response to the start of an upload in parts."""
    return _xml("InitiateMultipartUploadResult", f"<UploadId>{upload}</UploadId>")


def completed(etag: str) -> bytes:
    """Return the response to its end."""
    return _xml("CompleteMultipartUploadResult", f'<ETag>"{etag}"</ETag>')


def listed(entries: Sequence[tuple[str, tuple[int, str] | None]], token: str | None) -> bytes:
    """Return a page of a list: each key with its size and ETag, or a common prefix with None."""
    parts = []
    for name, found in entries:
        if found is None:
            parts.append(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>")
        else:
            size, etag = found
            parts.append(
                f"<Contents><Key>{escape(name)}</Key><LastModified>2026-11-01T00:00:00.000Z</LastModified>"
                f'<ETag>"{etag}"</ETag><Size>{size}</Size></Contents>'
            )
    more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    truncated = "true" if token else "false"
    return _xml("ListBucketResult", f"<IsTruncated>{truncated}</IsTruncated>{more}{''.join(parts)}")


def _xml(name: str, content: str) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?><{name}>{content}</{name}>'.encode()
