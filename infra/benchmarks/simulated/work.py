"""`EmbedWork` whose reader and encoder sleep; plan, ledger, tables, commit records and resumption are the product's."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from simulated.cohort import signature

from raystp.cluster.streams.units import Encoded, Pixels, ReadTiles, WorkUnit
from raystp.steps.embed.work import EmbedWork

DIM = 2
"""Length of a simulated vector: the unit's signature."""
SIDE_PX = 2


@dataclass(frozen=True)
class SimulatedWork(EmbedWork):
    """Sleeps for each tile that is read or encoded; notes each unit that is computed to its end."""

    tile_s: float = 0.0
    """Of the encoder, for each tile. The reader takes half of it, beside the encoder."""
    notes: str = ""
    """Folder of the files of computed units, one for each process."""

    @classmethod
    def of(cls, work: EmbedWork, tile_s: float, notes: str) -> "SimulatedWork":
        """Return a simulation of this work."""
        return cls(**{one.name: getattr(work, one.name) for one in fields(EmbedWork)}, tile_s=tile_s, notes=notes)

    def make_reader(self, buffers: int) -> Callable[[WorkUnit, int, int], ReadTiles]:  # type: ignore[override]  # a plain function
        """Return a reader of tiny tiles that hold the unit's signature."""
        del buffers

        def read(unit: WorkUnit, start: int, stop: int) -> ReadTiles:
            time.sleep(self.tile_s / 2 * (stop - start))
            pixels = np.zeros((stop - start, SIDE_PX, SIDE_PX, 3), np.uint8)
            pixels[:, 0, 0, :2], pixels[:, 0, 1, :2] = (divmod(one, 256) for one in signature(unit.unit))
            return ReadTiles(pixels)

        return read

    def make_encoder(self) -> Callable[[Pixels], Encoded]:
        """Return an encoder whose vectors are the signature."""

        def encode(pixels: Pixels) -> Encoded:
            time.sleep(self.tile_s * len(pixels))
            pairs = pixels[:, 0, :, :2].astype(np.float32)
            return (pairs[..., 0] * 256 + pairs[..., 1],)

        return encode

    def commit(self, unit: WorkUnit, batches: Sequence[Encoded], failed: Mapping[int, str]) -> None:
        """Note the unit, then commit it."""
        with (Path(self.notes) / f"computed-{os.getpid()}.txt").open("a", encoding="ascii") as file:
            file.write(f"{unit.unit}\n")
        super().commit(unit, batches, failed)
