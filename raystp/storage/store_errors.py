"""The errors of obstore: transient ones, which `retry` repeats, and the others as a sentence.

A message shows a status and a code, and no other text of the store, its headers or the URL: a store may repeat there
what it was sent, secrets too.
"""

import re

from obstore.exceptions import UnauthenticatedError

from raystp.errors import StorageError
from raystp.storage.retry import TransientError, UnreachableError

CHANGED, BEYOND_END = 412, 416

_STATUS = re.compile(r"returned non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Z][A-Za-z]{1,63})</Code>")
_BROKEN = re.compile(r"kind: (Connect|Timeout|Interrupted|Request|Decode|Unknown)\b")
_OTHER_RANGE = re.compile(r"source: (NotPartial|UnexpectedRange|ParseContentRange|NoContentRange)")
_TRANSIENT_STATUS = {408, 429}
_TRANSIENT_CODES = {"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "RequestTimeTooSkewed"}


def response(error: Exception) -> tuple[int, str]:
    """Return the status and code of a store's response; 0 where there was none."""
    status, code = _STATUS.search(str(error)), _CODE.search(str(error))
    return int(status[1]) if status else 0, code[1] if code else ""


def is_other_range(error: Exception) -> bool:
    """Return whether the store sent another range of bytes than the requested one."""
    return _OTHER_RANGE.search(str(error)) is not None


def translate(error: Exception, action: str, *, answered: bool) -> TransientError | StorageError:
    """Return the error for an exception of obstore: transient, or with the whole sentence.

    `answered` says whether the store has answered this process before.
    """
    status, code = response(error)
    shown = f"{status} {code}".rstrip()
    broken = _BROKEN.search(str(error))
    if status >= 500 or status in _TRANSIENT_STATUS or code in _TRANSIENT_CODES:  # noqa: PLR2004 -- 5xx
        return TransientError(f"the store answered {shown}")
    if status in {401, 403}:
        reason = f"the store refuses it ({shown}); these credentials lack the permission, or the object is absent"
    elif isinstance(error, FileNotFoundError):
        reason = f"not found ({shown})"
    elif status:
        reason = f"the store answered {shown}"
    elif isinstance(error, UnauthenticatedError):
        reason = "the credentials cannot be loaded"
    elif broken:
        kind = UnreachableError if answered and broken[1] == "Connect" else TransientError
        return kind(f"the connection broke or timed out ({broken[1]})")
    else:
        reason = type(error).__name__
    return StorageError(f"cannot {action}: {reason}")
