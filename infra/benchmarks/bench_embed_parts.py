"""The parts of a tile's time: CPU microseconds of read, normalise, network, copies and commit, one thread, without Ray.

Each batch passes the parts one after the other, and the process's CPU time is read between them. Two changes are
measured in the same run, before and after: the compiled loop of the normaliser, which it uses after `COMPILED_AFTER`
tiles, and freed memory that the process keeps. `bench_embed.py` adds what a whole run takes beyond these parts: threads
and queues, and Ray.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch

from raystp.cluster.memory import keep_freed_memory
from raystp.cluster.streams.units import WorkUnit
from raystp.encoders.batches import DEFAULT_BATCH
from raystp.encoders.encoder import BatchEncoder, Encoder
from raystp.encoders.normalise import COMPILED_AFTER, PixelNormaliser
from raystp.steps.embed.work import EmbedWork

Result = TypeVar("Result")

READ, NORMALISE, NETWORK = "read", "normalise", "network"
COPIES, COMMIT = "copies of rows, checks", "commit"
UNITS = 2
"""Units that are measured before and after, each after one that warms up."""


@dataclass
class Clock:
    """CPU seconds of each part."""

    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, part: str, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function, and add its CPU time to a part."""
        start = time.process_time()
        result = function(*arguments)
        self.seconds[part] = self.seconds.get(part, 0.0) + time.process_time() - start
        return result


@dataclass(frozen=True)
class Pass:
    """What a batch passes."""

    work: EmbedWork
    encoder: Encoder
    batch: int
    normalise: PixelNormaliser

    def measure(self, units: Sequence[WorkUnit]) -> dict[str, float]:
        """Return the CPU microseconds per tile of each part, of all units but the first."""
        run, read = BatchEncoder(self.encoder, device="cpu"), self.work.make_reader(2)
        clock = Clock()
        for number, unit in enumerate(units):
            clock = Clock() if number == 1 else clock
            rows = []
            for start in range(0, unit.rows, self.batch):
                tiles = clock.add(READ, read, unit, start, min(start + self.batch, unit.rows))
                self._pass(clock, tiles.pixels)
                rows.append((clock.add("encode", run, tiles.pixels),))
            clock.add(COMMIT, self.work.commit, unit, rows, {})
        tiles_measured = sum(unit.rows for unit in units[1:])
        return {part: seconds / tiles_measured * 1e6 for part, seconds in clock.seconds.items()}

    def _pass(self, clock: Clock, pixels: np.ndarray) -> None:
        with torch.inference_mode():
            for start in range(0, len(pixels), DEFAULT_BATCH):
                normalised = clock.add(NORMALISE, self.normalise, pixels[start : start + DEFAULT_BATCH])
                clock.add(NETWORK, self.encoder.network, normalised)


def measure_parts(work: EmbedWork, units: Sequence[WorkUnit], batch: int) -> dict[str, dict[str, float]]:
    """Return the CPU microseconds per tile of each part, `before` and `after`, from different units."""
    torch.set_num_threads(1)
    encoder = work.outputs[0].build()
    options: dict[str, Any] = {"side": encoder.tile_px, "capacity": DEFAULT_BATCH, "device": torch.device("cpu")}
    normalise = PixelNormaliser(encoder.mean, encoder.std, **options)
    before = Pass(work, encoder, batch, normalise).measure(units[: UNITS + 1])
    black = np.zeros((DEFAULT_BATCH, encoder.tile_px, encoder.tile_px, 3), np.uint8)
    for _ in range(COMPILED_AFTER // DEFAULT_BATCH):
        normalise(black)
    keep_freed_memory()
    after = Pass(work, encoder, batch, normalise).measure(units[UNITS + 1 : 2 * UNITS + 2])
    # An encoder of this process normalises with torch's loop until it has seen enough tiles.
    before[COPIES] = before["encode"] - before[NORMALISE] - before[NETWORK]
    after[COPIES] = after["encode"] - before[NORMALISE] - after[NETWORK]
    order = (READ, NORMALISE, NETWORK, COPIES, COMMIT)
    return {name: {part: parts[part] for part in order} for name, parts in (("before", before), ("after", after))}
