"""Inputs of the training benchmark: random features, or tiles of a synthetic slide with a tower.

`TimedSamples` logs for each epoch how long its loop waited for input, and the CPU time of its process.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from bench_slides import HEIGHT, WIDTH, make_slides
from jaxtyping import Int64

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter
from raystp.cluster.training.workers import Worker
from raystp.encoders.augment.options import Augmentation
from raystp.encoders.encoder import EncoderSpec
from raystp.encoders.registry import build
from raystp.models.bleep.model import seeded_bleep
from raystp.models.bleep.options import BleepOptions
from raystp.models.training.options import FitOptions
from raystp.models.training.samples import PairDataset, Prefetching, SampleSet
from raystp.models.training.setup import TrainSetup
from raystp.models.training.tile_samples import TileSamples, tile_numbers
from raystp.models.training.tower import attach_tower
from raystp.steps.train.spots.pixels import EncoderTiles, TileRows
from raystp.storage import StoragePath

FEATURES, GENES, TILE_PX = 512, 1000, 224

Rows = Int64[np.ndarray, " _"]


@dataclass
class TimedSamples:
    """Samples, and a line of JSON for each epoch but the last."""

    samples: SampleSet
    log: Path
    _waited: float = 0.0
    _cpu: float = field(default_factory=time.process_time)
    _started: bool = False

    def __len__(self) -> int:
        return len(self.samples)

    def prefetch(self, parts: Sequence[Rows], epoch: int) -> None:
        """Log the previous epoch, and start the next."""
        now = time.process_time()
        if self._started:
            line = {"epoch": epoch - 1, "waited": self._waited, "cpu": now - self._cpu}
            with self.log.open("a", encoding="utf-8") as log:
                log.write(json.dumps({**line, "threads": torch.get_num_threads()}) + "\n")
        self._waited, self._cpu, self._started = 0.0, now, True
        if isinstance(self.samples, Prefetching):
            self.samples.prefetch(parts, epoch)

    def add(self, seconds: float) -> None:
        """Count time that the caller waited."""
        self._waited += seconds

    def at(self, rows: Rows) -> tuple[torch.Tensor, ...]:
        """Return the samples, and measure the time."""
        start = time.perf_counter()
        found = self.samples.at(rows)
        self._waited += time.perf_counter() - start
        return found


@dataclass(frozen=True)
class SyntheticLearner:
    """A learner with the same synthetic data on each worker."""

    kind: ClassVar[str] = "bleep"

    spots: int
    log: Path
    tiles: Artifact | None = None
    """With tiles, `tower` is trained too."""
    tower: str = "tiny"

    def prepare(self, worker: Worker) -> TrainSetup:
        """Return model and pairs; those of the first worker are timed."""
        setup = self.setup()
        return TrainSetup(setup.model, TimedSamples(setup.train, self.log)) if worker.rank == 0 else setup

    def setup(self) -> TrainSetup:
        """Return model and pairs."""
        features, expression = self.arrays()
        if self.tiles is None:
            return TrainSetup(
                seeded_bleep(FEATURES, GENES, BleepOptions(), seed=0), PairDataset.of(features, expression)
            )
        encoder = build(EncoderSpec(self.tower, random=self.tower != "tiny"))
        model = seeded_bleep(encoder.dim, GENES, BleepOptions(), seed=0)
        attach_tower(model, encoder.network, (0,), FitOptions())
        pairs = PairDataset.of(torch.from_numpy(tile_numbers(self.spots)), expression)
        tiles = EncoderTiles(self.rows(), encoder, torch.device("cpu"), Augmentation())
        return TrainSetup(model, TileSamples(pairs, (0,), tiles))

    def arrays(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return random features and expression."""
        rng = np.random.default_rng(0)
        features, expression = (rng.standard_normal((self.spots, size), dtype=np.float32) for size in (FEATURES, GENES))
        return torch.from_numpy(features), torch.from_numpy(expression)

    def rows(self) -> TileRows:
        """Return a reader of tiles at random positions."""
        assert self.tiles is not None
        corners = np.random.default_rng(1).integers(0, (WIDTH - TILE_PX, HEIGHT - TILE_PX), (self.spots, 2))
        tile_boxes = np.column_stack([corners, np.full(self.spots, TILE_PX)]).astype(np.float64)
        return TileRows(self.tiles, ("made",), np.zeros(self.spots, np.int64), tile_boxes)


def make_tiles(folder: Path) -> Artifact:
    """Draw a slide, and write the part of a `tile` artifact that a training reads."""
    path = make_slides(folder)["g256"]
    writer = ArtifactWriter(
        StoragePath.of(folder) / "tile" / "made-000000000000", "tile", "made", "000000000000", {}, {}
    )
    values = ["made", str(path), "made", "00", 0.5, "table", WIDTH, HEIGHT, True, 0.5, 0]
    rows = [dict(zip(tables.SLIDES.names, values, strict=True))]
    (writer.path / "slides.parquet").write_table(tables.of_rows(rows, tables.SLIDES))
    return writer.finish({}, [], {"pixels": TILE_PX, "side": TILE_PX / 2})
