"""What a step would write, found by the step's own code: it stops where it would begin to compute.

Every step resolves its inputs, then calls `artifacts.create_or_open`. Within `plan_only` that call ends the step, so a
dry run has the fingerprint of the real run, and needs no second description of any step.
"""

import contextvars
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from raystp.storage import StoragePath

_IS_PLANNING: contextvars.ContextVar[bool] = contextvars.ContextVar("is_planning", default=False)


@dataclass(frozen=True)
class PlannedWork:
    """The artifact of a step, before it is written."""

    path: StoragePath
    """Its folder; the name ends with the fingerprint."""
    inputs: Mapping[str, str]
    """Role of each input -> `<step>/<name>-<fingerprint>`, or a digest of a plain file."""
    finished: str | None
    """When equal work was finished; None if it was not."""
    failures: int = 0
    """Rows of its failures table."""


class WorkPlanned(Exception):  # noqa: N818 -- ends a step that is only planned; no error
    """Raised by `create_or_open` within `plan_only`."""

    def __init__(self, work: PlannedWork) -> None:
        super().__init__(str(work.path))
        self.work = work


def is_planning() -> bool:
    """Return whether a step is only planned."""
    return _IS_PLANNING.get()


def plan_only(run: Callable[[], object]) -> PlannedWork:
    """Call a step's `run` until it would begin to compute; nothing is written, and no Ray is started."""
    token = _IS_PLANNING.set(True)
    try:
        run()
    except WorkPlanned as planned:
        return planned.work
    finally:
        _IS_PLANNING.reset(token)
    msg = "a step wrote no artifact"
    raise AssertionError(msg)
