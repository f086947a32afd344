"""Types of the tile stream: a work unit, the work on it, its receipt, and the resources."""

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
    """The outcome of a unit: its committed rows, or the error message."""

    unit: str
    slide: str
    rows: int
    error: str
    waited_s: float = field(default=0.0, compare=False)
    """Seconds the encoder waited for the unit's pixels; 0 with separate readers."""
    encoded_s: float = field(default=0.0, compare=False)
    """Seconds of encoding."""


@runtime_checkable
class UnitWork(Protocol):
    """The work on a unit.

    It is pickled and sent to the workers: it holds names and configs, and builds what it needs there.
    """

    def is_committed(self, unit: WorkUnit) -> bool:
        """Return whether a unit is committed: an actor may die after the commit and before its receipt."""

    def begin(self, unit: WorkUnit) -> str:
        """Record an attempt; return an error message if the unit crashed too many workers, else an empty string."""

    def end(self, unit: WorkUnit) -> None:
        """Remove the record of attempts: the worker survived the unit."""

    def make_reader(self, buffers: int) -> Callable[[WorkUnit, int, int], Pixels]:
        """Build a function that reads tiles [start, stop) of a unit; it may reuse a batch after `buffers` more."""

    def make_encoder(self) -> Callable[[Pixels], Vectors]:
        """Build a function from tiles to vectors, on this process's device; vectors of encoders are concatenated."""

    def commit(self, unit: WorkUnit, vectors: Vectors) -> None:
        """Commit a whole unit atomically."""

    def write_part(self, unit: WorkUnit, part: int, vectors: Vectors) -> None:
        """Write a part of a unit to a temporary file."""

    def commit_parts(self, unit: WorkUnit, parts: int) -> None:
        """Commit a unit from its parts, and remove them."""


@dataclass(frozen=True)
class StreamResources:
    """Parallelism of the stream; it never changes a row. A pool of (min, max) actors is autoscaled."""

    encoders: int | tuple[int, int]
    batch_tiles: int
    threads: int
    readers: int | tuple[int, int] = 0
    cpus_per_encoder: float = 1.0
    gpus_per_encoder: float = 0.0
    deadline_s: float = 600.0
    """Time limit for reading a batch; a process that exceeds it is killed."""
