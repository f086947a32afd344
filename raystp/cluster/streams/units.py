"""Types of the tile stream: a work unit, the work on it, its receipt, and the resources."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

Pixels = UInt8[np.ndarray, "tile pixel pixel 3"]
MAX_BLOCKS, BLOCKS_PER_ENCODER = 10_000, 8
"""Blocks that Ray's driver has to hold and schedule: in a larger plan a block has several units. A cluster of many
encoders gets more blocks, since with a few for each encoder the last ones leave most of them idle."""

Encoded = tuple[Float[np.ndarray, "_ _"], ...]
"""What is stored of the same tiles: one array for each stored column, each of its own length and precision."""


@dataclass(frozen=True)
class WorkUnit:
    """A compact part of one slide: rows `first` to `first + rows` of its tiles table."""

    unit: str
    slide: str
    first: int
    rows: int


@dataclass(frozen=True)
class ReadTiles:
    """A part of a unit as read: the pixels of the tiles that can be read, in order, and the reasons of the others."""

    pixels: Pixels
    failed: Mapping[int, str] = field(default_factory=dict)
    """Row within the unit -> the reason that this tile cannot be read."""


@dataclass(frozen=True)
class UnitReceipt:
    """The outcome of a unit: its rows once it is committed, or the error message."""

    unit: str
    slide: str
    rows: int
    error: str
    waited_s: float = field(default=0.0, compare=False)
    """Seconds the encoder waited for the unit's pixels; 0 with separate readers."""
    encoded_s: float = field(default=0.0, compare=False)
    """Seconds of encoding."""
    fatal: str = ""
    """An error that ends the run, as `errors.to_text`: the encoder or the reader of units cannot be made."""


@runtime_checkable
class HoldsFile(Protocol):
    """A reader of units with an open slide."""

    def close(self) -> None:
        """Close it."""


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

    def begin_start(self, process: str) -> str:
        """Record that a process starts to make its reader and encoder; return an error message after too many crashes.

        A restarted process has the same name.
        """

    def end_start(self, process: str) -> None:
        """Remove the record of starts: the reader and the encoder are made, or cannot be made."""

    def make_reader(self, buffers: int) -> Callable[[WorkUnit, int, int], ReadTiles]:
        """Build a function that reads tiles [start, stop) of a unit; it may reuse a batch after `buffers` more.

        It may have `HoldsFile`.
        """

    def make_encoder(self) -> Callable[[Pixels], Encoded]:
        """Build a function from tiles to what is stored of them, on this process's device.

        It may have `encode_ahead.StartsEarly`.
        """

    def commit(self, unit: WorkUnit, batches: Sequence[Encoded], failed: Mapping[int, str]) -> None:
        """Commit a whole unit atomically: what is stored of its tiles, batch by batch, without the failed ones."""

    def write_part(self, unit: WorkUnit, part: int, encoded: Encoded, failed: Mapping[int, str]) -> None:
        """Write a part of a unit, and the reasons of its failed tiles, to a temporary file."""

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


def blocks_of(units: int, encoders: int) -> int:
    """Return the number of blocks for so many units and actors."""
    return min(units, max(MAX_BLOCKS, BLOCKS_PER_ENCODER * encoders))
