"""Parts of something too large for one process, each held by actors of its own, asked together.

A part is opened by each of its replicas; a question goes to one replica of every part, in turn, and the answers come
back in the order of the parts, all of them or an error: never fewer. An actor that dies is started anew by Ray, on
another node where its own is gone, and is asked again; who asked only waits. What a part is, and how answers become
one, is the caller's affair.
"""

import itertools
from collections.abc import Callable
from typing import Any

import ray

from raystp.errors import RaystpError


class ShardActor:
    """An actor that holds one part."""

    def __init__(self, opened: Callable[[int], Any], part: int) -> None:
        self._held, self._refusal = None, None
        try:
            self._held = opened(part)
        except RaystpError as error:  # an actor that fails to start says nothing of why
            self._refusal = error

    def call(self, method: str, *arguments: Any) -> Any:
        """Return what a method of what is held returns, or the error that raystp foresaw."""
        try:
            return self._refusal or getattr(self._held, method)(*arguments)
        except RaystpError as error:
            return error

    def ready(self) -> Exception | None:
        """Answer once the part is open."""
        return self._refusal


class ShardPool:
    """Handles of the actors; may be passed to other actors, which then ask the same ones."""

    def __init__(self, actors: list[list[Any]]) -> None:
        self._actors = actors
        self._turn = itertools.count()

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardPool, (self._actors,)

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        """Return what `method` of each part answers, in the order of the parts.

        Raises what a part raises.
        """
        turn = next(self._turn)
        sent = [ray.put(one) for one in arguments]  # once, not once per part
        answers = [replicas[turn % len(replicas)].call.remote(method, *sent) for replicas in self._actors]
        return _answered(answers)

    def close(self) -> None:
        """End the actors."""
        for actor in itertools.chain(*self._actors):
            ray.kill(actor)


def open_pool(opened: Callable[[int], Any], parts: int, *, replicas: int = 1, cpus: float = 1.0) -> ShardPool:
    """Start `replicas` actors for each part and wait until all have opened theirs.

    `opened` is importable and gives what holds a part, by its number. Raises what it raises.
    """
    # Without end: a question is answered late rather than short.
    options = {"num_cpus": cpus, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": "SPREAD"}
    remote: Any = ray.remote(ShardActor).options(**options)
    actors = [[remote.remote(opened, part) for _ in range(replicas)] for part in range(parts)]
    pool = ShardPool(actors)
    try:
        _answered([actor.ready.remote() for actor in itertools.chain(*actors)])
    except RaystpError:
        pool.close()
        raise
    return pool


def _answered(answers: list[Any]) -> list[Any]:
    found: list[Any] = ray.get(answers)
    for one in found:
        if isinstance(one, RaystpError):
            raise one
    return found
