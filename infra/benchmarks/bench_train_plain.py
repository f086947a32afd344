"""The plain loops that Ray Train is held against: the same model, sets and optimiser, as people write them.

From pixels there is a DataLoader with one process that reads ahead, tile by tile, with raystp's own reader; without
batches of its own the loop takes raystp's samples, and what differs then is Ray Train alone.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from bench_train_made import SIDE, Made, Watched
from torch.utils.data import DataLoader, Dataset

from raystp.models.training.options import FitOptions
from raystp.models.training.plan import epoch_plan
from raystp.models.training.samples import SampleSet
from raystp.slides.open import read_tiles
from raystp.steps.train.spots.pixels import PixelPairs
from raystp.units import TilePixels

Batches = Callable[[int], Iterator[tuple[torch.Tensor, ...]]]
"""The number of an epoch -> what each set of it holds."""

Make = Callable[[Made, FitOptions], Batches]


def looped(made: Made, fit: FitOptions, batches: Make | None) -> list[float]:
    """Train as people write it; return the seconds of each epoch."""
    lesson = made.lesson()
    model: Any = lesson.model
    watch = Watched(lesson.train, made.log)
    of_epoch = batches(made, fit) if batches is not None else None
    optimizer = torch.optim.AdamW(model.parameters(), lr=fit.lr, weight_decay=fit.weight_decay)
    model.train()
    seconds = []
    for epoch in range(fit.epochs):
        began = time.perf_counter()
        sets = plan_of(fit, made.spots, epoch)
        watch.prefetch(sets if of_epoch is None else [], epoch)
        coming = of_epoch(epoch) if of_epoch is not None else (watch.at(rows) for rows in sets)
        for number in range(len(sets)):
            if number % fit.accumulate_batches == 0:
                optimizer.zero_grad(set_to_none=True)
            asked = time.perf_counter()
            batch = next(coming)
            if of_epoch is not None:
                watch.add(time.perf_counter() - asked)
            loss = model.loss(*model(*batch)) / fit.accumulate_batches
            loss.backward()
            if number % fit.accumulate_batches == fit.accumulate_batches - 1:
                optimizer.step()
        seconds.append(time.perf_counter() - began)
    return seconds


def plan_of(fit: FitOptions, rows: int, epoch: int) -> list[np.ndarray]:
    """Return the sets of an epoch."""
    plan = epoch_plan(
        rows, batch_size=fit.batch_size, accumulate_batches=fit.accumulate_batches, seed=fit.seed, epoch=epoch
    )
    return list(plan.reshape(-1, fit.batch_size))


def arrays(made: Made, fit: FitOptions) -> Batches:
    """Give sets of features and expression."""
    features, expression = made.arrays()

    def of_epoch(epoch: int) -> Iterator[tuple[torch.Tensor, ...]]:
        for rows in plan_of(fit, made.spots, epoch):
            chosen = torch.from_numpy(rows)
            yield features[chosen], expression[chosen]

    return of_epoch


class Tiles(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Tiles one by one, turned and normalised, as datasets are written."""

    def __init__(self, pairs: SampleSet) -> None:
        assert isinstance(pairs, PixelPairs)
        self.rows, self.expression = pairs.rows, pairs.expression  # not the tower: a reader's process needs none
        self.mean, self.std = (torch.tensor(v).view(3, 1, 1) for v in (pairs.encoder.mean, pairs.encoder.std))

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a tile and its expression."""
        tile = read_tiles(self.rows._slide("made"), self.rows.squares[[row]], TilePixels(SIDE))[0]
        pixels = torch.rot90(torch.from_numpy(tile).permute(2, 0, 1), int(torch.randint(4, ())), (1, 2))
        return (pixels.float() / 255 - self.mean) / self.std, self.expression[row]


def loader(made: Made, fit: FitOptions) -> Batches:
    """Give sets of tiles and expression, read ahead by one process."""
    sets: list[list[int]] = []
    reader = DataLoader(
        Tiles(made.lesson().train),
        batch_sampler=sets,
        num_workers=1,
        persistent_workers=True,
        multiprocessing_context="spawn",
    )

    def of_epoch(epoch: int) -> Iterator[tuple[torch.Tensor, ...]]:
        sets[:] = [rows.tolist() for rows in plan_of(fit, made.spots, epoch)]
        yield from reader

    return of_epoch
