"""Independent work, one Ray task each: (position, answer) of each piece as soon as it is there."""

import faulthandler
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import ray
from ray.exceptions import OutOfMemoryError, WorkerCrashedError

Work = TypeVar("Work")
Answer = TypeVar("Answer")


RETRIES = 2
"""How often a piece is tried again whose process died."""


def map_tasks(
    function: Callable[[Work], Answer],
    work: Sequence[Work],
    *,
    cpus: float = 1.0,
    in_flight: int = 64,
    deadline_s: float | None = None,
    lost: Callable[[Work], Answer] | None = None,
) -> Iterator[tuple[int, Answer]]:
    """Run `function` on each item in a task of its own and yield (position, answer) as they finish.

    `function` is importable (a module's own function) and catches what it can name; what it raises ends the run. At
    most `in_flight` tasks are submitted at a time, so that nothing piles up on the driver. A process that takes longer
    than `deadline_s` is ended. A piece whose process ends is tried again twice, and then answered by `lost`; without
    one it ends the run.
    """
    # max_calls is left alone: a worker process is reused, so imports are paid once.
    options = {"num_cpus": cpus, "max_retries": RETRIES, "name": getattr(function, "__name__", "each")}
    remote: Any = ray.remote(_in_time).options(**options)
    waiting: dict[ray.ObjectRef[Any], int] = {}
    positions = iter(range(len(work)))
    for position in positions:
        waiting[remote.remote(function, work[position], deadline_s)] = position
        if len(waiting) >= in_flight:
            yield _next(waiting, work, lost)
    while waiting:
        yield _next(waiting, work, lost)


def _next(
    waiting: dict[ray.ObjectRef[Any], int], work: Sequence[Work], lost: Callable[[Work], Any] | None
) -> tuple[int, Any]:
    (ready,), _ = ray.wait(list(waiting), num_returns=1)
    position = waiting.pop(ready)
    try:
        return position, ray.get(ready)
    except (WorkerCrashedError, OutOfMemoryError):
        if lost is None:
            raise
        return position, lost(work[position])


def _in_time(function: Callable[[Work], Answer], one: Work, deadline_s: float | None) -> Answer:
    """Do one piece. The deadline is kept by a thread that needs no lock of Python's: a decoder may hang with it."""
    if deadline_s is not None:
        faulthandler.dump_traceback_later(deadline_s, exit=True, file=sys.stderr.fileno())
    try:
        return function(one)
    finally:
        faulthandler.cancel_dump_traceback_later()
