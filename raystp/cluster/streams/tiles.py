"""Slides -> embeddings, on Ray Data: a row of the stream is a work unit, never a tile.

A unit is a compact part of one slide (a range of rows of its tiles table). Only units travel from the driver. By
default the encoder's actor reads the pixels: threads keep batches of uint8 tiles ready ahead of the device. With
`readers` > 0 a separate pool of CPU actors sends bounded parts of a unit through the object store instead (for slow
codecs, or GPU nodes with few CPUs). Both give the same rows.

On one machine, and where an actor would have a single unit, each unit is a plain task instead (`unit_tasks.py`).

The work on a unit is a `UnitWork`; this module knows no slides and no encoders. Any exception becomes a receipt with
its reason, and the stream continues. After a crash, or after a hanging read is killed, Ray retries without limit;
`UnitWork.begin` counts attempts and rejects the unit after three. Ray's own retry limit cannot be used: it counts a
crash against every unit that was queued at the process.

Ray Data's row checkpoints are not used: they filter rows only in plans that start at a file reader. Instead the worker
commits each finished unit under the unit's name, and the driver skips committed units at the start.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import ray

from raystp.cluster.native_stderr import without_line
from raystp.cluster.session import check_resources, ray_data
from raystp.cluster.streams.tile_actors import EncodePart, EncodeUnit, JoinParts, ReadUnit
from raystp.cluster.streams.unit_tasks import run_units, suits_tasks
from raystp.cluster.streams.units import StreamResources, UnitReceipt, UnitWork, WorkUnit, blocks_of
from raystp.errors import of_text

if TYPE_CHECKING:
    from ray.data import ActorPoolStrategy, Dataset

RESTART_WARNING = b"constructor arguments in the object store and max_restarts > 0"

JOIN_THREADS = 4


def stream(
    work: UnitWork, units: list[WorkUnit], resources: StreamResources, on_stats: Callable[[str], object] = str
) -> Iterator[UnitReceipt]:
    """Run every unit; yield receipts as units finish, in no particular order. `on_stats` gets Ray's statistics.

    Raises the RaystpError of a process that cannot make its encoder or its reader, and ConfigError where no node has
    the resources of an encoder.
    """
    if not units:
        return
    check_resources(cpus=resources.cpus_per_encoder, gpus=resources.gpus_per_encoder)
    if suits_tasks(units, resources):
        yield from run_units(work, units, resources)
        return
    plan = build_plan(work, units, resources)
    if resources.readers == 0:
        for row in _rows(plan):
            yield UnitReceipt(**row)
    else:
        yield from _join_parts(work, {unit.unit: unit for unit in units}, plan)
    on_stats(plan.stats())


def _rows(plan: "Dataset") -> Iterator[dict[str, Any]]:
    """Yield the plan's rows; raise the error of a row that ends the run.

    Ray warns on stderr that an actor cannot be restarted once the arguments of its constructor are lost. Here the
    driver keeps them until the end (Ray Data's operator holds the reference): a killed actor is restarted.
    """
    rows = iter(plan.iter_rows())
    with without_line(RESTART_WARNING):
        first = next(rows, None)
    for row in itertools.chain([] if first is None else [first], rows):
        if row["fatal"]:
            raise of_text(row["fatal"])
        yield row


def build_plan(work: UnitWork, units: list[WorkUnit], resources: StreamResources) -> "Dataset":
    """Return the lazy Ray Data plan: one pool of actors, or a pool of readers and a pool of encoders."""
    data = ray_data()
    most = resources.encoders if isinstance(resources.encoders, int) else resources.encoders[1]
    source: Dataset = data.from_items([asdict(unit) for unit in units], override_num_blocks=blocks_of(len(units), most))
    encoders: dict[str, Any] = {
        "batch_size": 1,
        "compute": _pool(resources.encoders, len(units)),
        "num_cpus": resources.cpus_per_encoder,
        "num_gpus": resources.gpus_per_encoder,
    }
    if resources.readers == 0:
        return source.map_batches(EncodeUnit, fn_constructor_args=(work, resources), **encoders)
    parts = source.map_batches(
        ReadUnit,
        fn_constructor_args=(work, resources),
        batch_size=1,
        compute=_pool(resources.readers, len(units)),
        num_cpus=0.5,  # must differ from the encoders' share, or Ray fuses both into one operator
    )
    return parts.map_batches(EncodePart, fn_constructor_args=(work,), **encoders)


def _pool(size: int | tuple[int, int], units: int) -> "ActorPoolStrategy":
    """Return a pool of this size, or of [min, max]; no more actors than units start."""
    strategy: type[ActorPoolStrategy] = ray_data().ActorPoolStrategy
    if isinstance(size, int):
        return strategy(size=min(size, units))
    least, most = min(size[0], units), min(size[1], units)
    return strategy(min_size=least, max_size=most, initial_size=least)


def _join_parts(work: UnitWork, units: dict[str, WorkUnit], plan: "Dataset") -> Iterator[UnitReceipt]:
    """Join each unit once all its parts are written; yield its receipt as soon as it is committed."""
    # It reserves no CPU: the encoders may hold all of them until the last part is encoded.
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "max_concurrency": JOIN_THREADS}
    # The reference is kept here until the end: a restart needs it.
    reference = ray.put(work)
    joiner: Any = ray.remote(JoinParts).options(**options).remote([reference])
    written: dict[str, set[int]] = defaultdict(set)
    failed: set[str] = set()
    joining: dict[ray.ObjectRef[str], WorkUnit] = {}
    for row in _rows(plan):
        unit = units[row["unit"]]
        if row["error"] and unit.unit not in failed:
            failed.add(unit.unit)
            yield UnitReceipt(unit.unit, unit.slide, 0, row["error"])
        if row["parts"] == 0:
            yield UnitReceipt(unit.unit, unit.slide, unit.rows, "")
            continue
        written[unit.unit].add(row["part"])
        if len(written[unit.unit]) == row["parts"] and unit.unit not in failed:
            joining[joiner.join.remote(unit, row["parts"])] = unit
        yield from _joined(joining, timeout_s=0.0)
    while joining:
        yield from _joined(joining, timeout_s=None)


def _joined(joining: "dict[ray.ObjectRef[str], WorkUnit]", timeout_s: float | None) -> Iterator[UnitReceipt]:
    """Yield the receipts of joined units; without a timeout, wait for one."""
    ready, _ = ray.wait(list(joining), timeout=timeout_s) if joining else ([], [])
    for reference in ready:
        unit, error = joining.pop(reference), ray.get(reference)
        yield UnitReceipt(unit.unit, unit.slide, 0 if error else unit.rows, error)
