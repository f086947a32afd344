"""Slides -> embeddings, on Ray Data: the stream's row is a work unit, never a tile.

A unit is a compact part of one slide (a range of rows of its tiles table). Only units travel from the driver. Pixels
are made where they are used: by default, reader threads inside the encoder's actor keep batches of uint8 tiles ahead
of the device. With `readers` > 0, a separate pool of CPU readers hands bounded parts of a unit over one hop through
the object store instead (slow codecs, GPU nodes that are poor in CPU). Same rows either way.

What is done with a unit is passed in as a `UnitWork`: this room moves it about, and knows no slide and no encoder. A
unit that fails with a sentence becomes a receipt with that sentence; the stream goes on. A unit whose process ends, or
is ended because a read hangs, is begun again by Ray, without end; the work counts how often, and refuses it with a
sentence in the end. Ray's own bound would not do: it counts a process's death against all units that waited for it.

Ray Data's own row checkpoints do not serve here (they filter nothing unless the plan starts at a read), so a unit is
committed by the worker that finished it, under its own name, and the driver subtracts what is committed before it
starts.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import ray
import ray.data
from ray.data import ActorPoolStrategy

from raystp.cluster.streams.tile_actors import EncodePart, EncodeUnit, JoinParts, ReadUnit
from raystp.cluster.streams.units import StreamResources, UnitReceipt, UnitWork, WorkUnit

JOIN_THREADS = 4

BLOCKS = 10_000
"""Most blocks of a plan: what Ray's driver holds and schedules. A block of a larger plan has several units."""


def stream(
    work: UnitWork, units: list[WorkUnit], width: StreamResources, told: Callable[[str], object] = str
) -> Iterator[UnitReceipt]:
    """Run every unit and yield its receipt as it is done, in no particular order; `told` hears Ray's statistics."""
    if not units:
        return
    plan = build_plan(work, units, width)
    if width.readers == 0:
        for row in plan.iter_rows():
            yield UnitReceipt(**row)
    else:
        yield from _join_parts(work, {unit.unit: unit for unit in units}, plan)
    told(plan.stats())


def build_plan(work: UnitWork, units: list[WorkUnit], width: StreamResources) -> "ray.data.Dataset":
    """Return the lazy Ray Data plan: one actor pool, or a reader pool and an encoder pool one hop apart."""
    source = ray.data.from_items([asdict(unit) for unit in units], override_num_blocks=min(len(units), BLOCKS))
    pool: dict[str, Any] = {
        "batch_size": 1,
        "compute": _pool(width.encoders),
        "num_cpus": width.cpus_per_encoder,
        "num_gpus": width.gpus_per_encoder,
    }
    if width.readers == 0:
        return source.map_batches(EncodeUnit, fn_constructor_args=(work, width), **pool)
    parts = source.map_batches(
        ReadUnit,
        fn_constructor_args=(work, width),
        batch_size=1,
        compute=_pool(width.readers),
        num_cpus=0.5,  # unlike the encoders' share, or Ray fuses both into one operator
    )
    return parts.map_batches(EncodePart, fn_constructor_args=(work,), **pool)


def _pool(size: int | tuple[int, int]) -> ActorPoolStrategy:
    if isinstance(size, int):
        return ActorPoolStrategy(size=size)
    least, most = size
    return ActorPoolStrategy(min_size=least, max_size=most, initial_size=least)


def _join_parts(work: UnitWork, units: dict[str, WorkUnit], plan: "ray.data.Dataset") -> Iterator[UnitReceipt]:
    """Join each unit once all its parts are aside; yield its receipt as soon as it is there."""
    # No CPU of its own: the encoders may hold all of them until the last part is encoded.
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "max_concurrency": JOIN_THREADS}
    joiner: Any = ray.remote(JoinParts).options(**options).remote(work)
    seen: dict[str, set[int]] = defaultdict(set)
    failed: set[str] = set()
    joining: dict[ray.ObjectRef[str], WorkUnit] = {}
    for row in plan.iter_rows():
        unit = units[row["unit"]]
        if row["error"] and unit.unit not in failed:
            failed.add(unit.unit)
            yield UnitReceipt(unit.unit, unit.slide, 0, row["error"])
        if row["parts"] == 0:
            yield UnitReceipt(unit.unit, unit.slide, unit.rows, "")
            continue
        seen[unit.unit].add(row["part"])
        if len(seen[unit.unit]) == row["parts"] and unit.unit not in failed:
            joining[joiner.join.remote(unit, row["parts"])] = unit
        yield from _joined(joining, timeout_s=0.0)
    while joining:
        yield from _joined(joining, timeout_s=None)


def _joined(joining: "dict[ray.ObjectRef[str], WorkUnit]", timeout_s: float | None) -> Iterator[UnitReceipt]:
    """Yield the receipts of units whose joining is over, after waiting for one if there is no timeout."""
    ready, _ = ray.wait(list(joining), timeout=timeout_s) if joining else ([], [])
    for reference in ready:
        unit, error = joining.pop(reference), ray.get(reference)
        yield UnitReceipt(unit.unit, unit.slide, 0 if error else unit.rows, error)
