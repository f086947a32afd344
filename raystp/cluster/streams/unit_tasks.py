"""Units as plain Ray tasks, where Ray Data's own start would cost more than it gives.

On a machine that raystp alone uses, and where an actor would have a single unit. No actor starts, and Ray Data is not
imported: by the driver, by each encoder and by three actors of its own, that is five CPU-seconds before the first tile.
Ray gives tasks of one session the processes of earlier ones, with all that they have imported, and the second slide of
a notebook is embedded in a warm process. A crash, or a hanging read that is killed, is retried without limit;
`UnitWork.begin` counts attempts, as for actors.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import ray

from raystp.cluster.session import is_local_ray
from raystp.cluster.streams.tasks import as_finished
from raystp.cluster.streams.tile_actors import EncodeUnit
from raystp.cluster.streams.units import StreamResources, UnitReceipt, UnitWork, WorkUnit
from raystp.errors import of_text


def suits_tasks(units: Sequence[WorkUnit], resources: StreamResources) -> bool:
    """Return whether this machine is all that Ray has, or each unit would have an encoder's actor for itself.

    Not on GPUs: Ray ends the process of each task that had one, so that its memory is free.
    """
    if resources.readers or resources.gpus_per_encoder:
        return False
    if isinstance(resources.encoders, int):
        return is_local_ray() or len(units) <= resources.encoders
    return len(units) <= resources.encoders[0]


def run_units(work: UnitWork, units: Sequence[WorkUnit], resources: StreamResources) -> Iterator[UnitReceipt]:
    """Run every unit; yield receipts as units finish. Raises the error of a process that cannot make its encoder."""
    reference = ray.put(work)
    options = {"num_cpus": resources.cpus_per_encoder, "max_retries": -1, "name": "unit of tiles"}
    remote: Any = ray.remote(_run_unit).options(**options)
    encoders = resources.encoders if isinstance(resources.encoders, int) else len(units)
    tasks = as_finished(lambda unit: remote.remote(unit, [reference], resources), units, in_flight=encoders)
    for _, receipt in tasks:
        if receipt.fatal:
            raise of_text(receipt.fatal)
        yield receipt


_LAST: dict[bytes, EncodeUnit] = {}
"""What this process ran its last unit with, by the reference of the work: an open slide, and memory for pixels."""


def _run_unit(unit: WorkUnit, reference: "list[ray.ObjectRef[UnitWork]]", resources: StreamResources) -> UnitReceipt:
    """Run a unit in this process. The work is read as an actor's constructor reads it: a copy of this process."""
    key = reference[0].binary()
    if key not in _LAST:
        while _LAST:  # before memory for another is allocated
            _LAST.popitem()[1].close()
        _LAST[key] = EncodeUnit(ray.get(reference[0]), resources)
    row = _LAST[key]({name: np.array([value]) for name, value in asdict(unit).items()})
    return UnitReceipt(**{name: values[0] for name, values in row.items()})  # type: ignore[arg-type]  # a row of a table
