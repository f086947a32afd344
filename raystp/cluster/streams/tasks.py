"""Independent items, one Ray task each: yield (position, result) of each item as it finishes."""

import faulthandler
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import ray
from ray.exceptions import OutOfMemoryError, RayTaskError, WorkerCrashedError

from raystp.errors import ClusterError, own_error

Item = TypeVar("Item")
Result = TypeVar("Result")

RETRIES = 2
"""How often an item is retried after its process crashed."""


def map_tasks(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    cpus: float = 1.0,
    in_flight: int = 64,
    deadline_s: float | None = None,
    on_crash: Callable[[Item], Result] | None = None,
) -> Iterator[tuple[int, Result]]:
    """Run `function` on each item in its own task and yield (position, result) as tasks finish.

    `function` must be importable (module level). An exception that it raises ends the run, so the work on a slide or a
    section has the decorator `errors.failure_as_reason`. In `map_tasks` it is raised as its `errors.own_error`. At most
    `in_flight` tasks are submitted at a time, which bounds the driver's queue. A process that takes longer than
    `deadline_s` is killed. After a crash an item is retried twice; then `on_crash` gives its result, or, without
    `on_crash`, the run ends with the crash.
    """
    # `max_calls` keeps its default: worker processes are reused, so imports are paid once.
    options = {"num_cpus": cpus, "max_retries": RETRIES, "name": getattr(function, "__name__", "each")}
    remote: Any = ray.remote(_with_deadline).options(**options)
    yield from as_finished(
        lambda item: remote.remote(function, item, deadline_s), items, in_flight=in_flight, on_crash=on_crash
    )


def as_finished(
    submit: "Callable[[Item], ray.ObjectRef[Result]]",
    items: Sequence[Item],
    *,
    in_flight: int,
    on_crash: Callable[[Item], Result] | None = None,
) -> Iterator[tuple[int, Result]]:
    """Submit each item, at most `in_flight` at a time; yield (position, result) as tasks finish, as `map_tasks`."""
    waiting: dict[ray.ObjectRef[Result], int] = {}
    for position, item in enumerate(items):
        waiting[submit(item)] = position
        if len(waiting) >= in_flight:
            yield _next(waiting, items, on_crash)
    while waiting:
        yield _next(waiting, items, on_crash)


def _next(
    waiting: "dict[ray.ObjectRef[Result], int]", items: Sequence[Item], on_crash: Callable[[Item], Result] | None
) -> tuple[int, Result]:
    (ready,), _ = ray.wait(list(waiting), num_returns=1)
    position = waiting.pop(ready)
    try:
        return position, ray.get(ready)
    except (WorkerCrashedError, OutOfMemoryError) as error:
        if on_crash is not None:
            return position, on_crash(items[position])
        out_of_memory = isinstance(error, OutOfMemoryError)
        how = "was killed because this machine is out of memory" if out_of_memory else "crashed"
        msg = f"the process of item {position + 1} of {len(items)} {how}, {RETRIES + 1} times; see Ray's logs"
        raise ClusterError(msg) from error
    except RayTaskError as error:
        raise own_error(error) from None  # its text is the worker's traceback


def _with_deadline(function: Callable[[Item], Result], item: Item, deadline_s: float | None) -> Result:
    """Process one item; faulthandler's thread enforces the deadline, even if a decoder hangs and holds the GIL."""
    if deadline_s is not None:
        faulthandler.dump_traceback_later(deadline_s, exit=True, file=sys.stderr.fileno())
    try:
        return function(item)
    except Exception as error:
        raise own_error(error) from error  # an exception loses its place on the way to the driver
    finally:
        faulthandler.cancel_dump_traceback_later()
