"""Several trainings of one worker side by side, a Ray task each."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import ray

from raystp.cluster.session import check_resources, cluster_cpus, cluster_gpus
from raystp.cluster.streams.tasks import RETRIES, as_finished
from raystp.cluster.training.workers import TrainResources, inside_process
from raystp.errors import ConfigError, own_error

Item = TypeVar("Item")
Result = TypeVar("Result")

SMALL = 0.1
"""CPUs of a task whose training has several workers, which hold their own."""


def map_trainings(
    function: Callable[[Item], Result], items: Sequence[Item], resources: TrainResources, *, concurrent: int | None
) -> Iterator[tuple[int, Result]]:
    """Run `function`, which trains, on each item in a task of its own; yield (position, result) as they finish.

    A training of one worker runs in the task's process, which holds the worker's CPUs and GPUs, so no more run at a
    time than fit on the cluster; `concurrent` is a lower limit. Neither changes a result. `function` must be
    importable. A task whose process crashed is tried again twice. Raises what `function` raises.
    """
    cpus, gpus, at_a_time = resources.cpus_per_worker, resources.gpus_per_worker, concurrent or len(items)
    check_resources(cpus=cpus, gpus=gpus)
    if resources.workers > 1:
        at_a_time = min(at_a_time, _groups_that_fit(resources))
        cpus, gpus = SMALL, 0.0
    options = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": RETRIES, "name": "training"}
    remote: Any = ray.remote(_in_process).options(**options)
    yield from as_finished(lambda item: remote.remote(function, item), items, in_flight=max(1, at_a_time))


def _groups_that_fit(resources: TrainResources) -> int:
    """Return how many trainings of several workers fit on the cluster; raises ConfigError where none does."""
    held = resources.workers * resources.cpus_per_worker + SMALL
    fit = int(cluster_cpus() // held)
    if resources.gpus_per_worker:
        fit = min(fit, int(cluster_gpus() // (resources.workers * resources.gpus_per_worker)))
    if fit < 1:
        msg = (
            f"run.workers: one training of {resources.workers} workers needs {held:.1f} CPUs and "
            f"{resources.workers * resources.gpus_per_worker:g} GPUs, and the cluster has {cluster_cpus()} and "
            f"{cluster_gpus()}: set fewer workers"
        )
        raise ConfigError(msg)
    return fit


def _in_process(function: Callable[[Item], Result], item: Item) -> Result:
    try:
        with inside_process():
            return function(item)
    except Exception as error:
        raise own_error(error) from error  # an exception loses its place on the way to the driver
