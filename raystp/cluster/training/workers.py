"""Training over processes, on Ray Train: one worker or many, restarted from the last checkpoint when one dies.

What is trained is passed in as a `WorkerTask`; this room gives each of its workers a `Worker`: who it is, how to
gather rows from all the others with their gradient, how to wrap a network so that gradients are averaged, and where to
save.
"""

import contextlib
import contextvars
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import ray.train
import ray.train.torch
import ray.tune
import torch
import torch.distributed as dist
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError
from ray.tune.integration.ray_train import TuneReportCallback

from raystp.errors import ModelError, RaystpError
from raystp.storage import StoragePath

HISTORY = "history"
"""Key of a report under which all epochs so far lie, as JSON."""

RESTARTS = 2
"""How often the group of workers is started again before the training is given up."""


class _GatherRows(torch.autograd.Function):
    """Rows of all ranks, in rank order; the gradient of a row is the sum of what every rank made of it."""

    @staticmethod
    def forward(_ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        everyone = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(everyone, rows.contiguous())
        return torch.cat(everyone)

    @staticmethod
    def backward(_ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (gradient,) = gradients
        gradient = gradient.contiguous()
        dist.all_reduce(gradient, op=dist.ReduceOp.SUM)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


def gather(rows: torch.Tensor) -> torch.Tensor:
    """Return the rows of all ranks, (rank pair) x dim, with gradient; every rank brings equally many.

    With the mean over ranks that DDP takes afterwards, a loss that every rank computes on the gathered rows has exactly
    the gradient of that loss in one process.
    """
    return _GatherRows.apply(rows)  # type: ignore[no-any-return, no-untyped-call]  # torch types `apply` as Any


@dataclass(frozen=True)
class Worker:
    """One process of a training, as the work sees it."""

    rank: int
    world: int
    device: torch.device
    in_sweep: bool = False
    """Whether a sweep wants to hear of every epoch."""

    def wrap(self, network: torch.nn.Module) -> torch.nn.Module:
        """Put a network on this worker's device; with several workers, average its gradients over them."""
        return ray.train.torch.prepare_model(network)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Average a tensor over the workers, without gradient."""
        if self.world == 1:
            return values
        values = values.clone()
        dist.all_reduce(values, op=dist.ReduceOp.SUM)
        return values / self.world

    def resume(self) -> contextlib.AbstractContextManager[Path | None]:
        """Give the folder of the last checkpoint, or None at a start."""
        return _folder(ray.train.get_checkpoint())

    def report(self, metrics: dict[str, Any], folder: Path | None) -> None:
        """Publish numbers and, if there is one, a checkpoint folder, written by rank 0.

        A barrier: every rank calls it, equally often. Ray Train takes a report every two seconds or so, and the next
        one waits for that; without a checkpoint there is one in a sweep alone.
        """
        if folder is None and not self.in_sweep:
            return
        checkpoint = Checkpoint.from_directory(str(folder)) if folder is not None and self.rank == 0 else None
        ray.train.report(metrics, checkpoint=checkpoint)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a folder on this machine that goes away."""
        folder = Path(tempfile.mkdtemp(prefix="raystp-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class TrialWorker(Worker):
    """The one process of a trial of a sweep, which reports to Ray Tune and goes on from Tune's checkpoints."""

    def resume(self) -> contextlib.AbstractContextManager[Path | None]:
        """Give the folder of the trial's last checkpoint, or None at a start."""
        return _folder(ray.tune.get_checkpoint())

    def report(self, metrics: dict[str, Any], folder: Path | None) -> None:
        """Report numbers to the sweep, which may end the trial here, and a checkpoint, if there is one."""
        ray.tune.report(metrics, checkpoint=ray.tune.Checkpoint.from_directory(str(folder)) if folder else None)


@contextlib.contextmanager
def _folder(checkpoint: Any) -> Iterator[Path | None]:
    if checkpoint is None:
        yield None
        return
    with checkpoint.as_directory() as folder:
        yield Path(folder)


_IN_TRIAL: contextvars.ContextVar[bool] = contextvars.ContextVar("in_trial", default=False)


@contextlib.contextmanager
def trial() -> Iterator[None]:
    """Let what is trained inside report to the sweep whose trial this is."""
    mark = _IN_TRIAL.set(True)
    try:
        yield
    finally:
        _IN_TRIAL.reset(mark)


@runtime_checkable
class WorkerTask(Protocol):
    """What one worker does; it travels to the workers, so it holds names and configs."""

    def __call__(self, worker: Worker) -> dict[str, Any]:
        """Train to the end and return what the driver needs to know, as plain values (rank 0's counts)."""


@dataclass(frozen=True)
class TrainResources:
    """How many workers, and what each is given; nothing here changes the result beyond rounding."""

    workers: int = 1
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0


def train(work: WorkerTask, width: TrainResources, *, folder: StoragePath, name: str) -> dict[str, Any]:
    """Run the work on every worker and return rank 0's answer.

    Checkpoints lie in `folder`/`name`; where some are already, an earlier training of this name goes on from the last.
    Inside a trial of a sweep, one worker is the trial's own process, and several report to the sweep. Raises
    ModelError with the workers' own sentence where they failed with one.
    """
    if _IN_TRIAL.get() and width.workers == 1:
        return work(TrialWorker(0, 1, torch.device("cuda" if width.gpus_per_worker else "cpu")))
    trainer = TorchTrainer(
        _run,  # type: ignore[arg-type]  # a loop's return value is newer than Ray's annotation
        train_loop_config={"work": work, "in_sweep": _IN_TRIAL.get()},
        scaling_config=ScalingConfig(
            num_workers=width.workers,
            use_gpu=width.gpus_per_worker > 0,
            resources_per_worker={"CPU": width.cpus_per_worker}
            | ({"GPU": width.gpus_per_worker} if width.gpus_per_worker else {}),
        ),
        run_config=RunConfig(
            name=name,
            **folder.for_ray(),
            failure_config=FailureConfig(max_failures=RESTARTS),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            callbacks=_callbacks(),
        ),
    )
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        raise ModelError(_sentence(error)) from error
    answer: dict[str, Any] = result.return_value  # type: ignore[attr-defined]  # as above
    return answer


def _callbacks() -> list[Any]:
    return [TuneReportCallback()] if _IN_TRIAL.get() else []  # type: ignore[no-untyped-call]  # Ray's own


def _run(config: dict[str, Any]) -> dict[str, Any]:
    context = ray.train.get_context()
    device = ray.train.torch.get_device()
    worker = Worker(context.get_world_rank(), context.get_world_size(), device, config["in_sweep"])
    work: WorkerTask = config["work"]
    return work(worker)


def _sentence(error: TrainingFailedError) -> str:
    failures = error.worker_failures if isinstance(error, WorkerGroupError) else {}
    for failure in failures.values():
        cause: BaseException | None = failure
        while cause is not None:
            if isinstance(cause, RaystpError):
                return str(cause)
            cause = cause.__cause__
    return f"the training failed, after {RESTARTS} restarts: {error}"
