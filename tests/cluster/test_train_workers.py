"""Training over processes: one worker, two or four, the same loss and the same gradients."""

import socket
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from raystp.cluster.train_workers import gather
from raystp.models.bleep import Bleep, seeded_bleep
from raystp.models.bleep_loss import BleepOptions
from raystp.models.fit import FitOptions, Training, accumulate
from raystp.models.pairs import Pairs
from raystp.models.plan import Ranks, epoch_plan

OPTIONS = FitOptions(epochs=1, contrast=8, step=4, seed=5)
LOSS = "loss"


def _training() -> tuple[Training, Pairs]:
    """Return the same small model and the same 32 pairs in every process; without dropout, which has no width to hide
    in."""
    random = np.random.default_rng(7)
    features = torch.from_numpy(random.standard_normal((32, 6), dtype=np.float32))
    expression = torch.from_numpy(random.standard_normal((32, 4), dtype=np.float32))
    model = seeded_bleep(6, 4, BleepOptions(dropout=0.0, dim=8), seed=1)
    return Training.start(model, model.loss, OPTIONS), Pairs.of(features, expression)


def _gradients(training: Training, pairs: Pairs, ranks: Ranks) -> dict[str, torch.Tensor]:
    (sets,) = epoch_plan(len(pairs), contrast=OPTIONS.contrast, step=OPTIONS.step, seed=OPTIONS.seed, epoch=0)
    loss = accumulate(training, pairs, sets, ranks)
    found = {name: value.grad for name, value in training.model.named_parameters() if value.grad is not None}
    return {**found, LOSS: loss}


def _worker(rank: int, world: int, port: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    for geometry, gathered in {"gathered": gather, "in parts": gather, "dealt": None}.items():
        training, pairs = _training()
        training.part = cast("Bleep", training.model).loss_part if geometry == "in parts" else None
        wrapped = DistributedDataParallel(training.model)
        training.wrapped = wrapped
        found = _gradients(training, pairs, Ranks(rank, world, gather=gathered, no_sync=wrapped.no_sync))
        dist.all_reduce(found[LOSS])
        found[LOSS] /= world
        if rank == 0:
            safetensors.torch.save_file(found, Path(folder) / geometry)
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, 4])
def workers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run all geometries on some processes; return the folder with what they found."""
    folder = tmp_path_factory.mktemp("workers")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(_worker, (request.param, port, str(folder)), nprocs=request.param)  # type: ignore[no-untyped-call]  # torch ships it without types
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("geometry", ["gathered", "in parts", "dealt"])
def test_several_workers_have_the_loss_and_the_gradients_of_one(workers: Path, geometry: str) -> None:
    found = safetensors.torch.load_file(workers / geometry)
    alone = _gradients(*_training(), Ranks())
    assert set(found) == set(alone)
    for name, value in alone.items():
        torch.testing.assert_close(found[name], value, rtol=0.0, atol=1e-5, msg=name)


def test_gathered_negatives_are_more_than_a_workers_own() -> None:
    training, pairs = _training()
    plan = epoch_plan(len(pairs), contrast=OPTIONS.contrast, step=OPTIONS.step, seed=OPTIONS.seed, epoch=0)
    whole = accumulate(training, pairs, plan[0], Ranks())
    halves = accumulate(training, pairs, plan[0].reshape(8, 4), Ranks())
    assert not torch.allclose(whole, halves)
