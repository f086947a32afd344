"""Training over processes: loss and gradients on two or four workers equal those on one."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from raystp.cluster.training.workers import gather
from raystp.models.bleep.model import seeded_bleep
from raystp.models.bleep.options import BleepOptions
from raystp.models.contrastive import loss_blocks
from raystp.models.mclstexp.model import seeded_mclstexp
from raystp.models.mclstexp.options import MclstexpOptions
from raystp.models.mclstexp.places import section_places
from raystp.models.mclstexp.samples import SectionSpots
from raystp.models.nh2st.model import seeded_nh2st
from raystp.models.nh2st.options import Nh2stOptions
from raystp.models.nh2st.samples import NeighbourSamples
from raystp.models.predictor import SpotSections
from raystp.models.training.fit import TrainState, accumulate
from raystp.models.training.options import FitOptions
from raystp.models.training.plan import RankLayout, epoch_plan
from raystp.models.training.samples import PairDataset, SampleSet

OPTIONS = FitOptions(epochs=1, batch_size=8, accumulate_batches=4, seed=5)
LOSS = "loss"
LAYOUTS = ("gathered", "in parts", "whole batches")
ROWS, FEATURES, GENES = 32, 6, 4

Setup = tuple[TrainState, SampleSet]


def _arrays() -> tuple[torch.Tensor, torch.Tensor]:
    """Return features and expression, the same in every process."""
    random = np.random.default_rng(7)
    features = torch.from_numpy(random.standard_normal((ROWS, FEATURES), dtype=np.float32))
    return features, torch.from_numpy(random.standard_normal((ROWS, GENES), dtype=np.float32))


def _bleep(options: BleepOptions) -> Setup:
    model = seeded_bleep(FEATURES, GENES, options, seed=1)
    return TrainState.start(model, model.loss, OPTIONS, loss_part=model.loss_part), PairDataset.of(*_arrays())


def _nh2st(form: Any) -> Setup:
    """Return spots in a row, each with a neighbour on either side."""
    model = seeded_nh2st(FEATURES, GENES, Nh2stOptions(form=form, dim=8, heads=2, dropout=0.0), seed=1)
    rows = np.arange(ROWS)[:, None] + [0, -1, 1]
    samples = NeighbourSamples.of(*_arrays(), rows % ROWS, (rows >= 0) & (rows < ROWS))
    return TrainState.start(model, model.loss, OPTIONS, loss_part=model.loss_part), samples


def _mclstexp() -> Setup:
    """Return spots of two sections on a line."""
    options = MclstexpOptions(positions="learned", dim=8, heads=2, head_dim=4, context_spots=12)
    model = seeded_mclstexp(FEATURES, GENES, options, seed=1)
    line = np.arange(ROWS)
    sections = SpotSections(line % 2, np.stack([line // 2 * 9.0, np.ones(ROWS), np.full(ROWS, 8.0)], axis=1))
    samples = SectionSpots.of(_arrays(), sections, section_places(options, sections, None), options)
    return TrainState.start(model, model.loss, OPTIONS, loss_part=model.loss_part), samples


# Without dropout, whose random masks differ with the number of workers.
SETUPS: dict[str, Callable[[], Setup]] = {
    "BLEEP": lambda: _bleep(BleepOptions(dropout=0.0, dim=8)),
    "BLEEP, identity": lambda: _bleep(BleepOptions(dropout=0.0, dim=8, target="identity", normalize_embeddings=True)),
    "NH2ST": lambda: _nh2st("faithful"),
    "NH2ST, mended": lambda: _nh2st("mended"),
    "mclSTExp": _mclstexp,
}


def _gradients(setup: Setup, ranks: RankLayout) -> dict[str, torch.Tensor]:
    training, samples = setup
    (sets,) = epoch_plan(
        len(samples),
        batch_size=OPTIONS.batch_size,
        accumulate_batches=OPTIONS.accumulate_batches,
        seed=OPTIONS.seed,
        epoch=0,
    )
    loss = accumulate(training, samples, sets, ranks)
    found = {name: value.grad for name, value in training.model.named_parameters() if value.grad is not None}
    return {**found, LOSS: loss}


def _worker(rank: int, world: int, port: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    loss_blocks.BLOCK = 2 * OPTIONS.batch_size  # two rows at a time
    for name, make in SETUPS.items():
        for layout in LAYOUTS:
            training, samples = make()
            training.loss_part = training.loss_part if layout == "in parts" else None
            training.ddp = wrapped = DistributedDataParallel(training.model)
            gathered = None if layout == "whole batches" else gather
            ranks = RankLayout(rank, world, gather=gathered, no_sync=wrapped.no_sync)
            found = _gradients((training, samples), ranks)
            dist.all_reduce(found[LOSS])
            found[LOSS] /= world
            if rank == 0:
                safetensors.torch.save_file(found, Path(folder) / f"{name}, {layout}")
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.faults)])
def workers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run all layouts on several processes; return the folder with their gradients."""
    folder = tmp_path_factory.mktemp("workers")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(_worker, (request.param, port, str(folder)), nprocs=request.param)  # type: ignore[no-untyped-call]  # torch ships it without types
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", SETUPS)
def test_several_workers_have_the_loss_and_gradients_of_one(workers: Path, name: str, layout: str) -> None:
    found = safetensors.torch.load_file(workers / f"{name}, {layout}")
    alone = _gradients(SETUPS[name](), RankLayout())
    assert set(found) == set(alone)
    for key, value in alone.items():
        torch.testing.assert_close(found[key], value, rtol=0.0, atol=1e-5, msg=key)


def test_gathered_negatives_give_another_loss_than_a_workers_own() -> None:
    training, samples = SETUPS["BLEEP"]()
    plan = epoch_plan(
        len(samples),
        batch_size=OPTIONS.batch_size,
        accumulate_batches=OPTIONS.accumulate_batches,
        seed=OPTIONS.seed,
        epoch=0,
    )
    whole = accumulate(training, samples, plan[0], RankLayout())
    halves = accumulate(training, samples, plan[0].reshape(8, 4), RankLayout())
    assert not torch.allclose(whole, halves)
