"""Shards of an object too large for one process, each held by its own actors, called together.

Each replica of a shard opens it. A call goes to one replica of every shard, round robin, and returns the results of
all shards in order, or raises; it never returns fewer. Ray restarts a crashed actor, on another node if needed, and
retries the call; the caller only waits longer. What a shard is, and how results are merged, is up to the caller.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.actor import ActorHandle

from raystp.errors import RaystpError, own_error


class ShardActor:
    """An actor that holds one shard."""

    def __init__(self, open_shard: Callable[[int], object], shard: int) -> None:
        self._held: object = None
        self._error: RaystpError | None = None
        try:
            self._held = open_shard(shard)
        except Exception as error:  # noqa: BLE001 -- Ray would not report why an actor's constructor failed
            self._error = own_error(error)

    def call(self, method: str, *arguments: object) -> object:
        """Return the result of a method of the shard, or the error that it raised, as a RaystpError."""
        try:
            return self._error or getattr(self._held, method)(*arguments)
        except Exception as error:  # noqa: BLE001 -- the caller raises it
            return own_error(error)

    def ready(self) -> RaystpError | None:
        """Return None once the shard is open, or the error of opening it."""
        return self._error


class ShardPool:
    """Handles of the actors; may be sent to other processes, which then call the same actors."""

    def __init__(self, actors: list[list["ActorHandle[ShardActor]"]]) -> None:
        self._actors = actors
        self._turn = itertools.count()

    def __reduce__(self) -> tuple[type["ShardPool"], tuple[list[list["ActorHandle[ShardActor]"]]]]:
        return ShardPool, (self._actors,)

    def call(self, method: str, *arguments: object) -> list[Any]:
        """Return the results of `method` of each shard, in the order of the shards; raise the first shard's error."""
        turn = next(self._turn)
        references = [ray.put(argument) for argument in arguments]  # once, not once per shard
        calls = [replicas[turn % len(replicas)].call.remote(method, *references) for replicas in self._actors]
        return _results(calls)

    def close(self) -> None:
        """Stop the actors."""
        for actor in itertools.chain(*self._actors):
            ray.kill(actor)


def open_pool(open_shard: Callable[[int], object], shards: int, *, replicas: int = 1, cpus: float = 1.0) -> ShardPool:
    """Start `replicas` actors for each shard and wait until all shards are open.

    `open_shard` is importable and returns the shard of a number. Raises the RaystpError that it raises.
    """
    # Without limit: a late result is better than an incomplete one.
    options = {"num_cpus": cpus, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": "SPREAD"}
    remote: Any = ray.remote(ShardActor).options(**options)
    actors = [[remote.remote(open_shard, shard) for _ in range(replicas)] for shard in range(shards)]
    pool = ShardPool(actors)
    try:
        _results([actor.ready.remote() for actor in itertools.chain(*actors)])
    except RaystpError:
        pool.close()
        raise
    return pool


def _results(calls: "Sequence[ray.ObjectRef[object]]") -> list[Any]:
    results: list[Any] = ray.get(list(calls))
    for result in results:
        if isinstance(result, RaystpError):
            raise result
    return results
