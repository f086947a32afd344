"""Independent work, one Ray task each: the answers in the order of the work, each as soon as it is there."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import ray

Work = TypeVar("Work")
Answer = TypeVar("Answer")


def each(
    function: Callable[[Work], Answer], work: Sequence[Work], *, cpus: float = 1.0, in_flight: int = 64
) -> Iterator[tuple[int, Answer]]:
    """Run `function` on each item in a task of its own and yield (position, answer) as they finish.

    `function` is importable (a module's own function) and catches what it can name; what it raises ends the run. At
    most `in_flight` tasks are submitted at a time, so that nothing piles up on the driver. A process that dies is
    tried again twice.
    """
    # max_calls is left alone: a worker process is reused, so imports are paid once.
    remote = ray.remote(function).options(num_cpus=cpus, max_retries=2)
    waiting: dict[ray.ObjectRef[Any], int] = {}
    positions = iter(range(len(work)))
    for position in positions:
        waiting[remote.remote(work[position])] = position
        if len(waiting) >= in_flight:
            yield _next(waiting)
    while waiting:
        yield _next(waiting)


def _next(waiting: dict[ray.ObjectRef[Any], int]) -> tuple[int, Any]:
    (ready,), _ = ray.wait(list(waiting), num_returns=1)
    return waiting.pop(ready), ray.get(ready)
