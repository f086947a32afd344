"""Plain training loops to compare with Ray Train: the same model, batches and optimiser.

From pixels, a DataLoader prefetches in one process, tile by tile, with raystp's reader. With `make_batches=None` the
loop uses raystp's samples, so that only Ray Train differs.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from bench_train_made import TILE_PX, SyntheticLearner, TimedSamples
from torch.utils.data import DataLoader, Dataset

from raystp.models.training.options import FitOptions
from raystp.models.training.plan import epoch_plan
from raystp.models.training.samples import PairDataset, SampleSet
from raystp.models.training.tile_samples import TileSamples
from raystp.slides.open import read_tiles
from raystp.steps.train.spots.pixels import EncoderTiles
from raystp.units import TilePixels

Batches = Callable[[int], Iterator[tuple[torch.Tensor, ...]]]
"""Number of an epoch -> its batches."""

MakeBatches = Callable[[SyntheticLearner, FitOptions], Batches]


def plain_loop(made: SyntheticLearner, fit: FitOptions, make_batches: MakeBatches | None) -> list[float]:
    """Train in a plain loop; return the seconds of each epoch."""
    setup = made.setup()
    model: Any = setup.model
    samples = TimedSamples(setup.train, made.log)
    batches = make_batches(made, fit) if make_batches is not None else None
    optimizer = torch.optim.AdamW(model.parameters(), lr=fit.lr, weight_decay=fit.weight_decay)
    model.train()
    seconds = []
    for epoch in range(fit.epochs):
        start = time.perf_counter()
        plan = epoch_batches(fit, made.spots, epoch)
        samples.prefetch(plan if batches is None else [], epoch)
        source = batches(epoch) if batches is not None else (samples.at(rows) for rows in plan)
        for number in range(len(plan)):
            if number % fit.accumulate_batches == 0:
                optimizer.zero_grad(set_to_none=True)
            requested = time.perf_counter()
            batch = next(source)
            if batches is not None:
                samples.add(time.perf_counter() - requested)
            loss = model.loss(*model(*batch)) / fit.accumulate_batches
            loss.backward()
            if number % fit.accumulate_batches == fit.accumulate_batches - 1:
                optimizer.step()
        seconds.append(time.perf_counter() - start)
    return seconds


def epoch_batches(fit: FitOptions, rows: int, epoch: int) -> list[np.ndarray]:
    """Return the rows of each batch of an epoch."""
    plan = epoch_plan(
        rows, batch_size=fit.batch_size, accumulate_batches=fit.accumulate_batches, seed=fit.seed, epoch=epoch
    )
    return list(plan.reshape(-1, fit.batch_size))


def array_batches(made: SyntheticLearner, fit: FitOptions) -> Batches:
    """Return batches of features and expression."""
    features, expression = made.arrays()

    def batches(epoch: int) -> Iterator[tuple[torch.Tensor, ...]]:
        for rows in epoch_batches(fit, made.spots, epoch):
            chosen = torch.from_numpy(rows)
            yield features[chosen], expression[chosen]

    return batches


class Tiles(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Single tiles, rotated and normalised, as in a usual dataset."""

    def __init__(self, pairs: SampleSet) -> None:
        assert isinstance(pairs, TileSamples)
        assert isinstance(pairs.samples, PairDataset)
        assert isinstance(pairs.tiles, EncoderTiles)
        # Without the tower, which the reader's process does not need.
        self.rows, self.expression, encoder = pairs.tiles.rows, pairs.samples.expression, pairs.tiles.encoder
        self.mean, self.std = (torch.tensor(v).view(3, 1, 1) for v in (encoder.mean, encoder.std))

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a tile and its expression."""
        tile = read_tiles(self.rows._slide("made"), self.rows.boxes[[row]], TilePixels(TILE_PX))[0]
        pixels = torch.rot90(torch.from_numpy(tile).permute(2, 0, 1), int(torch.randint(4, ())), (1, 2))
        return (pixels.float() / 255 - self.mean) / self.std, self.expression[row]


def loader_batches(made: SyntheticLearner, fit: FitOptions) -> Batches:
    """Return batches of tiles and expression, prefetched by one process."""
    plan: list[list[int]] = []
    reader = DataLoader(
        Tiles(made.setup().train),
        batch_sampler=plan,
        num_workers=1,
        persistent_workers=True,
        multiprocessing_context="spawn",
    )

    def batches(epoch: int) -> Iterator[tuple[torch.Tensor, ...]]:
        plan[:] = [rows.tolist() for rows in epoch_batches(fit, made.spots, epoch)]
        for pixels, expression in reader:
            yield pixels, torch.arange(1, len(pixels) + 1), expression

    return batches
