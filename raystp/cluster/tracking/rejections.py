"""Which errors of MLflow are rejections of one entry, and which mean that the server does not respond."""

import re

from raystp.cluster.tracking.runs import Entry
from raystp.errors import RaystpError

REJECTIONS = frozenset(
    {
        *("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE"),
        *("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "RESOURCE_ALREADY_EXISTS", "NOT_FOUND"),
        *("RESOURCE_LIMIT_EXCEEDED", "QUOTA_EXCEEDED", "RESOURCE_EXHAUSTED", "NOT_IMPLEMENTED", "FEATURE_DISABLED"),
    }
)
"""Error codes that a retry a moment later would not change: the entry is kept, and later ones are delivered."""


def is_rejection(error: Exception) -> bool:
    """Return whether a retry would fail too: MLflow rejects the entry, or a file of the run cannot be read."""
    return isinstance(error, RaystpError | FileNotFoundError) or getattr(error, "error_code", None) in REJECTIONS


def parts_of(entry: Entry) -> list[Entry]:
    """Return an entry as one entry per value."""
    values = entry.get("values")
    return [{**entry, "values": {key: value}} for key, value in values.items()] if values else [entry]


def reason_of(error: Exception) -> str:
    """Return an error's first line, up to 160 characters, without the user and password of a URL."""
    line = re.sub(r"//[^/@ ]*@", "//", str(error).strip().partition("\n")[0])
    return f"{type(error).__name__}: {line[:160]}"
