"""BLEEP's training in samples per second: from cached features, and from pixels in memory with ResNet-50."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from gpu.figures import Figures, Options
from gpu.networks import encoder_of

from raystp.encoders.encoder import Encoder
from raystp.encoders.normalise import PixelNormaliser
from raystp.encoders.transfer import Transfer, transfer_to
from raystp.models.bleep.model import seeded_bleep
from raystp.models.bleep.options import BleepOptions
from raystp.models.training.fit import fit
from raystp.models.training.options import FitOptions, Precision
from raystp.models.training.samples import PairDataset, SampleSet
from raystp.models.training.setup import TrainSetup, start
from raystp.models.training.tile_samples import Rows, TileSamples, tile_numbers
from raystp.models.training.tower import attach_tower

GENES = 1000


@dataclass(frozen=True)
class MemoryTiles:
    """A `TileSource` of tiles in memory, copied to the device as those of a slide are."""

    tiles: np.ndarray
    encoder: Encoder
    transfer: Transfer
    device: torch.device

    def prefetch(self, parts: Sequence[Rows], epoch: int) -> None:
        """Do nothing: the tiles are in memory."""

    def __call__(self, rows: Rows) -> torch.Tensor:
        """Return normalised tiles."""
        mean, std, side = self.encoder.mean, self.encoder.std, self.tiles.shape[1]
        normaliser = PixelNormaliser(mean, std, side=side, capacity=len(rows), device=self.device)
        with self.transfer.sent(self.tiles[rows % len(self.tiles)]) as sent:
            return normaliser.normalise(sent)


def measure(options: Options, figures: Figures) -> None:
    """Measure both kinds of training, in each precision."""
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    spots = 128 if options.quick else 16_384
    for precision in precisions:
        fit_options = FitOptions(
            epochs=3, batch_size=32 if options.quick else 128, accumulate_batches=2, precision=precision
        )
        model = seeded_bleep(2048, GENES, BleepOptions(), seed=0).to(options.device)
        features, expression = _arrays(spots, 2048, options)
        rate = _rate(TrainSetup(model, PairDataset.of(features, expression)), fit_options)
        figures.add(f"cached features, {precision}", rate, "samples/s")
    for precision in precisions:
        pixel_options = FitOptions(
            epochs=2, batch_size=4 if options.quick else 128, accumulate_batches=1, precision=precision
        )
        setup = _from_pixels(8 if options.quick else 2048, pixel_options, options)
        figures.add(f"from pixels with resnet50, {precision}", _rate(setup, pixel_options), "samples/s")


def _from_pixels(spots: int, fit_options: FitOptions, options: Options) -> TrainSetup:
    encoder, device = encoder_of("resnet50", quick=options.quick), torch.device(options.device)
    model = seeded_bleep(encoder.dim, GENES, BleepOptions(), seed=0).to(device)
    attach_tower(model, encoder.network.to(device), (0,), fit_options)
    side = encoder.tile_px
    tiles = np.random.default_rng(0).integers(0, 256, (min(spots, 512), side, side, 3), dtype=np.uint8)
    pairs: SampleSet = PairDataset.of(torch.from_numpy(tile_numbers(spots)).to(device), _arrays(spots, 1, options)[1])
    return TrainSetup(model, TileSamples(pairs, (0,), MemoryTiles(tiles, encoder, transfer_to(device), device)))


def _arrays(spots: int, size: int, options: Options) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    arrays = (rng.standard_normal((spots, columns), dtype=np.float32) for columns in (size, GENES))
    features, expression = (torch.from_numpy(one).to(options.device) for one in arrays)
    return features, expression


def _rate(setup: TrainSetup, options: FitOptions) -> float:
    """Return the samples per second of the median epoch after the first."""
    ends = [time.perf_counter()]
    ends.extend(time.perf_counter() for _ in fit(start(setup, options), setup.train, options))
    seconds = [end - began for began, end in pairwise(ends)]
    return len(setup.train) / statistics.median(seconds[1:])
