"""Parts of a run side by side: each calls steps in a Ray task of its own, and its messages are printed here.

The task holds no CPUs: the trainings and searches of its steps ask for their own. A part that fails does not stop the
others.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError
from ray.util.queue import Queue

from raystp.cluster import json_logs
from raystp.cluster.environment import explain
from raystp.cluster.session import is_local_ray, joined
from raystp.cluster.streams.tasks import RETRIES, as_finished
from raystp.errors import ClusterError, RaystpError, own_error, unwrapped

logger = logging.getLogger("raystp")

Item = TypeVar("Item")
Result = TypeVar("Result")

READ_INTERVAL_S = 0.3
"""Seconds between two looks at the messages of the parts."""
END_S = 5.0
"""Seconds that the last messages are waited for."""


def run_parts(
    function: Callable[[Item], Result], parts: Mapping[str, Item], *, at_once: int
) -> Iterator[tuple[str, Result | RaystpError]]:
    """Run `function` on each part; yield its label with its result, or with its error, as parts finish.

    With `at_once=1` the parts run in this process, in their order. Else each runs in a task, and its messages are
    printed here after its label. `function` must be importable. A task whose process crashed is tried again twice.
    """
    if at_once == 1:
        for label, item in parts.items():
            yield label, _result_or_error(function, item)
        return
    labels = list(parts)
    run: Any = _run  # Ray's types do not allow a keyword
    options = {"num_cpus": 0, "max_retries": RETRIES, "name": "part of a run", "scheduling_strategy": "SPREAD"}
    remote: Any = ray.remote(run).options(**options)
    is_local = is_local_ray()
    with _messages() as queue:
        for position, result in as_finished(
            lambda label: remote.remote(function, parts[label], label, queue, is_local=is_local),
            labels,
            in_flight=at_once,
            on_crash=_crashed,
        ):
            yield labels[position], result


def _run(
    function: Callable[[Item], Result], item: Item, label: str, queue: Queue, *, is_local: bool
) -> Result | RaystpError:
    with joined(is_local=is_local), _sent(label, queue):
        return _result_or_error(function, item)


def _result_or_error(function: Callable[[Item], Result], item: Item) -> Result | RaystpError:
    try:
        return function(item)
    except Exception as error:  # noqa: BLE001 -- one part's fault does not stop the others
        explained = None if isinstance(unwrapped(error), RaystpError) else explain(error)
        return ClusterError(explained) if explained else own_error(error)


def _crashed(label: str) -> ClusterError:
    return ClusterError(
        f"the process of {label} crashed {RETRIES + 1} times, probably out of memory; see Ray's logs, and set "
        "run.folds_at_once=1"
    )


class _QueueHandler(logging.Handler):
    """Send each message of raystp to the driver: its level, its text, and the step and the slide that it states."""

    def __init__(self, label: str, queue: Queue) -> None:
        super().__init__()
        self._label, self._queue = label, queue

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record; a lost queue does not stop the work."""
        if record.name != logger.name:  # tracebacks stay in the log of this process
            return
        try:
            text = f"{self._label}: {self.format(record)}"
            self._queue.put_nowait((record.levelno, text, json_logs.stated_by(record)))
        except RayError:
            self.handleError(record)


@contextlib.contextmanager
def _sent(label: str, queue: Queue) -> Iterator[None]:
    """Send the messages of this process to the driver, and write them to this process's log."""
    handlers: list[logging.Handler] = [_QueueHandler(label, queue)]
    if not json_logs.are_on(logger):  # then this worker has a handler already
        handlers.append(logging.StreamHandler())
    level = logger.level
    for handler in handlers:
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        for handler in handlers:
            logger.removeHandler(handler)


@contextlib.contextmanager
def _messages() -> Iterator[Queue]:
    """Yield a queue of messages; a thread prints what is in it, until the end."""
    queue, stop = Queue(actor_options={"num_cpus": 0}), threading.Event()
    reader = threading.Thread(target=_follow, args=(queue, stop), name="raystp-messages", daemon=True)
    reader.start()
    try:
        yield queue
    finally:
        stop.set()
        reader.join(END_S)
        with contextlib.suppress(RayError):
            queue.shutdown()


def _follow(queue: Queue, stop: threading.Event) -> None:
    with contextlib.suppress(RayError):  # the session is closed, or the queue's node is lost
        while not stop.wait(READ_INTERVAL_S):
            _print(queue)
        _print(queue)


def _print(queue: Queue) -> None:
    for level, text, stated in queue.get_nowait_batch(queue.qsize()):
        logger.log(level, text, extra=stated)
