"""Laws of a step of training from pixels: the host reads nothing from the device, so a GPU is never waited for.

torch's meta device stands in for the GPU: its tensors have no values, so reading one is an error.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raystp.models.bleep.model import seeded_bleep
from raystp.models.bleep.options import BleepOptions
from raystp.models.training.fit import TrainState, accumulate, fit
from raystp.models.training.options import FitOptions
from raystp.models.training.samples import PairDataset, mean_squared_error, to_device
from raystp.models.training.tile_samples import Rows, TileSamples, tile_numbers
from raystp.models.training.tower import attach_tower

SPOTS, GENES, DIM, SIDE = 12, 5, 6, 4
OPTIONS = FitOptions(epochs=2, batch_size=4, accumulate_batches=1)
META = torch.device("meta")


@dataclass
class Tiles:
    """A `TileSource` on any device."""

    device: torch.device

    def prefetch(self, parts: Sequence[Rows], epoch: int) -> None:
        pass

    def __call__(self, rows: Rows) -> Tensor:
        pixels = np.random.default_rng(0).standard_normal((SPOTS, 3, SIDE, SIDE), dtype=np.float32)
        return to_device(pixels[rows], self.device)


@dataclass
class Pairs:
    """Pairs of tile numbers and expression, moved to a device when they are used."""

    device: torch.device

    def at(self, rows: Rows) -> tuple[Tensor, ...]:
        expression = np.random.default_rng(1).standard_normal((SPOTS, GENES), dtype=np.float32)
        return to_device(tile_numbers(SPOTS)[rows], self.device), to_device(expression[rows], self.device)

    def __len__(self) -> int:
        return SPOTS


def state_on(device: torch.device) -> TrainState:
    torch.manual_seed(0)
    tower = nn.Sequential(nn.Conv2d(3, DIM, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = seeded_bleep(DIM, GENES, BleepOptions(), seed=0)
    attach_tower(model, tower, (0,), OPTIONS)
    return TrainState.start(model.to(device), model.loss, OPTIONS)


def test_a_step_from_pixels_reads_nothing_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # it does not know this device
    samples = TileSamples(Pairs(torch.device("cpu")), (0,), Tiles(META))
    parts = [np.arange(start, start + 4) for start in range(0, SPOTS, 4)]
    samples.prefetch(parts, epoch=0)  # reads the numbers of all tiles, before the first step
    samples.samples = Pairs(META)
    state = state_on(META)
    for part in parts:
        accumulate(state, samples, part[None], key=(0, 0, 0))
        state.optimizer.step()


def test_a_step_without_prefetch_reads_the_numbers() -> None:
    samples = TileSamples(Pairs(META), (0,), Tiles(META))
    with pytest.raises(NotImplementedError, match="meta tensor"):
        samples.at(np.arange(4))


@pytest.mark.parametrize("missing", [False, True])
def test_the_error_of_a_batch_is_computed_on_the_device(missing: bool) -> None:  # noqa: FBT001 -- pytest's
    predicted, target = torch.arange(6.0).reshape(2, 3), torch.ones(2, 3)
    if missing:
        target[0, 1] = torch.nan
    assert mean_squared_error(predicted.to(META), target.to(META)).shape == ()
    errors = (predicted - target)[~torch.isnan(target)] ** 2
    torch.testing.assert_close(mean_squared_error(predicted, target), errors.mean())


class Unread(TileSamples):
    """Samples whose numbers are read in each step."""

    def prefetch(self, parts: Sequence[Rows], epoch: int) -> None:
        pass


def test_prefetched_numbers_train_as_numbers_that_are_read_in_each_step() -> None:
    cpu = torch.device("cpu")
    kinds = (TileSamples, Unread)
    losses = [
        [row["train_loss"] for row in fit(state_on(cpu), kind(Pairs(cpu), (0,), Tiles(cpu)), OPTIONS)] for kind in kinds
    ]
    assert losses[0] == losses[1]


def test_rows_of_a_data_set_are_those_asked_for() -> None:
    values = torch.arange(12.0).reshape(4, 3)
    pairs = PairDataset.of(values, values)
    torch.testing.assert_close(pairs.at(np.array([2, 0]))[0], values[[2, 0]])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_step_on_a_gpu_never_synchronises() -> None:
    cuda = torch.device("cuda")
    samples = TileSamples(Pairs(cuda), (0,), Tiles(cuda))
    parts = [np.arange(start, start + 4) for start in range(0, SPOTS, 4)]
    state = state_on(cuda)
    for epoch in range(2):  # the first one allocates
        samples.prefetch(parts, epoch)
        torch.cuda.set_sync_debug_mode("error" if epoch else "default")
        try:
            for part in parts:
                accumulate(state, samples, part[None], key=(0, 0, 0))
                state.optimizer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
