"""JSON files of other tools: an object of a bounded size."""

import json
from typing import Any

from raystp.errors import FormatError
from raystp.storage import StoragePath


def read_object(path: StoragePath, limit: int) -> dict[str, Any]:
    """Return a file of JSON that is an object. Raises FormatError for another one, and above `limit` bytes."""
    size = path.size()
    if size > limit:
        msg = f"{path} has {size:,} bytes, and {limit:,} are expected at most; it was not read"
        raise FormatError(msg)
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        msg = f"{path} is not readable JSON ({type(error).__name__}): write or download it again"
        raise FormatError(msg) from None
    if not isinstance(found, dict):
        msg = f"{path} holds a JSON {type(found).__name__}, expected an object"
        raise FormatError(msg)
    return found
