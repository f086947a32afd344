"""The parts of a tile's time: CPU microseconds of read, normalise, network, copies and commit, one thread, without Ray.

Each batch passes the parts one after the other, and the process's CPU time is read between them. Both loops of the
normaliser are measured on the same batches: torch's, and the compiled one that it uses after `COMPILED_AFTER` tiles.
`bench_embed.py` adds what a whole run takes beyond these parts: threads and queues, and Ray.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch

from raystp.cluster.streams.units import WorkUnit
from raystp.encoders.batches import DEFAULT_BATCH
from raystp.encoders.encoder import BatchEncoder
from raystp.encoders.normalise import COMPILED_AFTER, PixelNormaliser
from raystp.steps.embed.work import EmbedWork

Result = TypeVar("Result")

READ, REPLACED, NORMALISE, NETWORK = "read", "(normalise before: torch's loop)", "normalise", "network"
COPIES, COMMIT = "copies of rows, checks", "commit"
UNITS = 3
"""Units that are measured, after one that warms up."""


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


def measure_parts(work: EmbedWork, units: list[WorkUnit], batch: int) -> dict[str, float]:
    """Return the CPU microseconds per tile of each part."""
    torch.set_num_threads(1)
    encoder = work.outputs[0].build()
    run = BatchEncoder(encoder, device="cpu")
    colours = {"side": encoder.tile_px, "capacity": DEFAULT_BATCH, "device": torch.device("cpu")}
    normalisers = [PixelNormaliser(encoder.mean, encoder.std, **colours) for _ in range(2)]
    black = np.zeros((DEFAULT_BATCH, encoder.tile_px, encoder.tile_px, 3), np.uint8)
    for _ in range(COMPILED_AFTER // DEFAULT_BATCH):
        normalisers[1](black)
    clock, read = Clock(), work.make_reader(2)
    for number, unit in enumerate(units[: UNITS + 1]):
        clock = Clock() if number <= 1 else clock
        rows = []
        for start in range(0, unit.rows, batch):
            stop = min(start + batch, unit.rows)
            tiles = clock.add(READ, read, unit, start, stop)
            _passes(clock, encoder.network, normalisers, tiles.pixels)
            rows.append((clock.add("encode", run, tiles.pixels),))
        clock.add(COMMIT, work.commit, unit, rows, {})
    measured = sum(unit.rows for unit in units[1 : UNITS + 1])
    parts = {part: seconds / measured * 1e6 for part, seconds in clock.seconds.items()}
    # The encoder of this process normalises with torch's loop until it has seen enough tiles.
    parts[COPIES] = parts.pop("encode") - parts[REPLACED] - parts[NETWORK]
    return {part: parts[part] for part in (READ, REPLACED, NORMALISE, NETWORK, COPIES, COMMIT)}


def _passes(clock: Clock, network: torch.nn.Module, normalisers: list[PixelNormaliser], pixels: np.ndarray) -> None:
    with torch.inference_mode():
        for start in range(0, len(pixels), DEFAULT_BATCH):
            part = pixels[start : start + DEFAULT_BATCH]
            for name, normalise in zip((REPLACED, NORMALISE), normalisers, strict=True):
                normalised = clock.add(name, normalise, part)
            clock.add(NETWORK, network, normalised)
