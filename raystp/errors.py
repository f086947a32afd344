"""All errors that raystp raises on purpose.

RaystpError
├── ConfigError      a config file or override is not valid
├── StorageError     a file or folder cannot be read or written
├── ArtifactError    an artifact is absent, unfinished, damaged, or has another schema version
├── SlideError       a slide cannot be opened, has no um/px, or one of its regions cannot be read
├── SectionError     measured spots do not fit their layout, their slide, or the schema
├── PanelError       a gene panel cannot be computed from these sections
├── EncoderError     an encoder is unknown, or its weights are not the configured ones
├── ModelError       a model cannot be trained or applied with these options
├── FormatError      a file of another tool is damaged, hostile, or lacks what its format has
├── LeakError        a patient is on both sides of a split, or of a query and its reference
├── ClusterError     Ray cannot start here, or a worker failed in a way that nothing else explains
└── Unfinished       part of the work is left; the same command continues

Each message has what is wrong, the value seen, what is allowed, the file, and the next command.

A step processes many slides and sections, and no exception of one of them ends the others: `failure_reason` gives the
text of its row in the failures table, for a RaystpError and for any other exception. A function that a step runs for
each slide or section has the decorator `failure_as_reason`.
"""

import functools
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

REASON_CHARACTERS = 300
"""Length limit of the message of an unexpected exception in a reason."""

PACKAGE = Path(__file__).parent

tracebacks = logging.getLogger("raystp.tracebacks")
"""Tracebacks of unexpected exceptions. A Ray worker writes them to its log; the command line does not print them."""


MAX_LINE, KEPT_END = 2_000, 500
"""Characters of a line in a message, and of its end, which stay: a damaged file may have a name of 10^5."""


class RaystpError(Exception):
    """Base class: `except RaystpError` catches the errors that raystp raises on purpose, and no others."""

    def __init__(self, *parts: object) -> None:
        super().__init__(*(_with_short_lines(part) if isinstance(part, str) else part for part in parts))


def _with_short_lines(message: str) -> str:
    """Return a message whose long lines have no middle."""
    if len(message) <= MAX_LINE:
        return message
    lines = message.split("\n")
    kept = MAX_LINE - KEPT_END
    return "\n".join(f"{line[:kept]}...{line[-KEPT_END:]}" if len(line) > MAX_LINE else line for line in lines)


class ConfigError(RaystpError):
    """A config file or an override is not valid; one message has all faults."""


class StorageError(RaystpError):
    """A file or folder cannot be read or written."""


class ArtifactError(RaystpError):
    """An artifact is absent, unfinished, damaged, or has another schema version."""


class SlideError(RaystpError):
    """A slide cannot be opened, has no um/px, or one of its regions cannot be read."""


class SectionError(RaystpError):
    """Measured spots do not fit their layout, their slide, or the schema."""


class PanelError(RaystpError):
    """A gene panel cannot be computed from these sections."""


class EncoderError(RaystpError):
    """An encoder is unknown, or its weights are not the configured ones."""


class ModelError(RaystpError):
    """A model cannot be trained or applied with these options."""


class FormatError(RaystpError):
    """A file of another tool is damaged, hostile, or lacks what its format has."""


class LeakError(RaystpError):
    """A patient is on both sides of a split, or of a query and its reference."""


class ClusterError(RaystpError):
    """Ray cannot start on this machine, or a worker process failed in a way that no other class explains."""


class Unfinished(RaystpError):  # noqa: N818 -- not an error of the user or the data
    """Part of the work is left; the same command continues."""


LONGEST = 200
"""Characters of a value in a message."""


def quoted(value: str) -> str:
    """Return a value in quotes for a message; a long one is cut."""
    return repr(value if len(value) <= LONGEST else f"{value[:LONGEST]}...")


def some(values: list[str], limit: int = 5) -> str:
    """Return up to `limit` values for a message, and the number of the others; long values are cut."""
    shown = ", ".join(quoted(value) for value in values[:limit])
    return shown if len(values) <= limit else f"{shown} and {len(values) - limit} more"


def failure_reason(error: BaseException) -> str:
    """Return the reason of a failure: a RaystpError's message, or any other exception's class, message and place.

    The place is the last line of raystp that the exception passed: `KeyError: 'x' (raystp/slides/open.py:123)`. The
    traceback of an unexpected exception goes to the logger `raystp.tracebacks`.
    """
    error = unwrapped(error)
    if isinstance(error, RaystpError):
        return str(error)
    tracebacks.warning("unexpected exception of one slide or section", exc_info=error)
    return describe_exception(error)


def failure_as_reason(function: Callable[[Item], Result]) -> Callable[[Item], Result | str]:
    """Decorate the work on one slide or section: an exception becomes its result, as the reason of a failure.

    Do not catch RaystpError in the function. KeyboardInterrupt and SystemExit are not caught.
    """

    @functools.wraps(function)
    def result_or_reason(item: Item) -> Result | str:
        try:
            return function(item)
        except Exception as error:  # noqa: BLE001 -- one slide's fault, of whatever kind, does not end the others
            return failure_reason(error)

    return result_or_reason


def own_error(error: BaseException) -> RaystpError:
    """Return a RaystpError unchanged, and any other exception as a ClusterError with its class, message and place.

    For an exception that is sent to another process, which would lose its traceback.
    """
    error = unwrapped(error)
    return error if isinstance(error, RaystpError) else ClusterError(failure_reason(error))


def unwrapped(error: BaseException) -> BaseException:
    """Return the exception of a worker that Ray's RayTaskError wraps, whose text is a traceback; else `error`."""
    while isinstance(cause := getattr(error, "cause", None), Exception):
        error = cause
    return error


def to_text(error: BaseException) -> str:
    """Return an exception as text for another process: `<class>: <message>`, of its `own_error`."""
    own = own_error(error)
    return f"{type(own).__name__}: {own}"


def of_text(text: str) -> RaystpError:
    """Return the error of `to_text`; of a class that is unknown here, a ClusterError with the whole text."""
    name, _, message = text.partition(": ")
    kind = globals().get(name)
    if isinstance(kind, type) and issubclass(kind, RaystpError):
        return kind(message)
    return ClusterError(text)


def describe_exception(error: BaseException) -> str:
    """Return the class, the message in one line, and the place of an unexpected exception."""
    name = "MemoryError" if isinstance(error, MemoryError) else type(error).__name__
    words = " ".join(str(error).split()) or "no message"
    shown = words if len(words) <= REASON_CHARACTERS else f"{words[:REASON_CHARACTERS]} ..."
    place = _place(error)
    return f"{name}: {shown} ({place})" if place else f"{name}: {shown}"


def _place(error: BaseException) -> str:
    """Return `raystp/<file>:<line>` of the last frame within this package, or an empty string."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(PACKAGE) and path != Path(__file__):
            return f"{path.relative_to(PACKAGE.parent).as_posix()}:{frame.lineno}"
    return ""
