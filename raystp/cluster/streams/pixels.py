"""Pixels for training: separate CPU readers on Ray Data, which yield batches in the order of the request.

Each training worker has its own stream, so what it trains on depends on its plan alone, not on the number of readers
or workers. What a row is, a `RowReader` defines; this module knows no slides.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Int64, UInt8

from raystp.cluster.session import ray_data

Rows = Int64[np.ndarray, " _"]
PREFETCH = 2
"""Batches that are kept ready for a training worker."""


@runtime_checkable
class RowReader(Protocol):
    """Read rows by number; it is pickled and sent to the readers, so it holds names and paths."""

    def __call__(self, rows: Rows) -> UInt8[np.ndarray, "_ pixel pixel 3"]:
        """Return the rows' pixels, in their order."""
        ...


@dataclass(frozen=True)
class ReaderPool:
    """Number of reader processes for one training worker, and the CPUs of each."""

    count: int
    cpus: float = 1.0


class _ReadActor:
    """Actor that reads batches."""

    def __init__(self, read: RowReader) -> None:
        self._read = read

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"row": batch["row"], "pixels": self._read(np.asarray(batch["row"], np.int64))}


def pixel_stream(
    read: RowReader, batches: Sequence[Rows], readers: ReaderPool
) -> Iterator[UInt8[torch.Tensor, "_ pixel pixel 3"]]:
    """Yield the pixels of each batch of rows, in order; all batches have equal size, but the last may be smaller."""
    size = len(batches[0])
    data = ray_data()
    source = data.from_arrow([pa.table({"row": rows}) for rows in batches])
    # This dataset's own context: another stream of this process may need another order.
    source.context.execution_options.preserve_order = True
    source.context.enable_progress_bars = False
    stream = source.map_batches(
        _ReadActor,
        fn_constructor_args=(read,),
        batch_size=size,
        compute=data.ActorPoolStrategy(size=readers.count),
        num_cpus=readers.cpus,
    )
    for batch in stream.iter_torch_batches(batch_size=size, prefetch_batches=PREFETCH, dtypes=None):
        yield batch["pixels"]
