"""What the stream of tiles speaks in: a unit of work, what is done with it, what became of it, and how wide it runs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

Pixels = UInt8[np.ndarray, "tile pixel pixel 3"]
Vectors = Float[np.ndarray, "tile dim"]


@dataclass(frozen=True)
class WorkUnit:
    """A compact part of one slide: rows `first` to `first + rows` of its tiles table."""

    unit: str
    slide: str
    first: int
    rows: int


@dataclass(frozen=True)
class UnitReceipt:
    """What became of a unit: its rows are committed, or `error` is the sentence that says why not."""

    unit: str
    slide: str
    rows: int
    error: str
    waited_s: float = field(default=0.0, compare=False)
    """How long the encoder waited for pixels of the unit; 0 where they are read apart."""
    encoded_s: float = field(default=0.0, compare=False)
    """How long it was at work on them."""


@runtime_checkable
class UnitWork(Protocol):
    """What is done with a unit.

    It travels to the workers: it holds names and configs, and builds what it needs there.
    """

    def done(self, unit: WorkUnit) -> bool:
        """Say whether a unit is committed: its actor may have died between that and its receipt."""

    def begin(self, unit: WorkUnit) -> str:
        """Write down that a unit is begun; return a sentence where it has ended too many processes already."""

    def ended(self, unit: WorkUnit) -> None:
        """Forget what was written down: the process that read the unit has lived to see its end."""

    def reader(self, held: int) -> Callable[[WorkUnit, int, int], Pixels]:
        """Build what reads tiles [start, stop) of a unit; it may overwrite a batch once `held` more were begun."""

    def encoder(self) -> Callable[[Pixels], Vectors]:
        """Build what turns tiles into vectors, on the device of this process; of several encoders, end to end."""

    def commit(self, unit: WorkUnit, vectors: Vectors) -> None:
        """Publish a whole unit, atomically."""

    def keep(self, unit: WorkUnit, part: int, vectors: Vectors) -> None:
        """Set a part of a unit aside."""

    def join(self, unit: WorkUnit, parts: int) -> None:
        """Publish a unit from its parts."""


@dataclass(frozen=True)
class StreamResources:
    """How wide the stream runs; nothing here changes a row. A pool of (least, most) actors grows as it is needed."""

    encoders: int | tuple[int, int]
    batch_tiles: int
    threads: int
    readers: int | tuple[int, int] = 0
    cpus_per_encoder: float = 1.0
    gpus_per_encoder: float = 0.0
    deadline_s: float = 600.0
    """Within which a batch must be read; a process in which a read hangs longer is ended."""
