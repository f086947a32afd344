"""Pixels for a training: CPU readers apart from the trainers, on Ray Data, in the order in which they are asked for.

Each worker streams its own sets, so what it trains on is what its plan says, however wide the pool or the training is.
What a row is, is passed in as a `RowReader`: this room moves rows about, and knows no slide.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import ray.data
import torch
from jaxtyping import Int64, UInt8
from ray.data import ActorPoolStrategy

Rows = Int64[np.ndarray, " _"]
AHEAD = 2
"""Sets that are kept ready in front of a trainer."""


@runtime_checkable
class RowReader(Protocol):
    """Reads rows by number; it travels to the readers, so it holds names and places."""

    def __call__(self, rows: Rows) -> UInt8[np.ndarray, "_ pixel pixel 3"]:
        """Return the rows' pixels, in their order."""
        ...


@dataclass(frozen=True)
class ReaderPool:
    """How many processes read for one trainer, and the share of a CPU that each holds."""

    count: int
    cpus: float = 1.0


class _ReadActor:
    """An actor that reads sets."""

    def __init__(self, read: RowReader) -> None:
        self._read = read

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        return {"row": batch["row"], "pixels": self._read(np.asarray(batch["row"], np.int64))}


def pixel_stream(
    read: RowReader, sets: Sequence[Rows], readers: ReaderPool
) -> Iterator[UInt8[torch.Tensor, "_ pixel pixel 3"]]:
    """Yield the pixels of one set of rows after the other; all sets are equally long, but for a shorter last one."""
    size = len(sets[0])
    source = ray.data.from_arrow([pa.table({"row": rows}) for rows in sets])
    # An own copy of the context: the driver of another stream in this process may want another order.
    source.context.execution_options.preserve_order = True
    source.context.enable_progress_bars = False
    stream = source.map_batches(
        _ReadActor,
        fn_constructor_args=(read,),
        batch_size=size,
        compute=ActorPoolStrategy(size=readers.count),
        num_cpus=readers.cpus,
    )
    for batch in stream.iter_torch_batches(batch_size=size, prefetch_batches=AHEAD, dtypes=None):
        yield batch["pixels"]
