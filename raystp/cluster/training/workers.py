"""Training over processes, on Ray Train: one or many workers, restarted from the last checkpoint after a crash.

The work is a `WorkerTask`. Each worker gets a `Worker`: its rank, how to gather rows of all ranks with gradient, how to
wrap a network so that gradients are averaged, and where to save checkpoints.

Rank 0 chooses the checkpoint to resume from, among those in the store. Ray's own choice is not used: its list of
checkpoints is one file, which a kill can leave empty, and it does not notice a checkpoint whose files are damaged.
"""

import contextlib
import contextvars
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import ray
import ray.train
import ray.train.collective
import ray.train.torch
import ray.tune
import torch
import torch.distributed as dist
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError
from ray.tune.integration.ray_train import TuneReportCallback

from raystp.cluster.session import check_resources
from raystp.errors import ModelError, RaystpError, failure_reason, unwrapped
from raystp.storage import StoragePath

Values: TypeAlias = dict[str, Any]
"""Metrics of a report, or the result of a training: JSON values."""

HISTORY = "history"
"""Key of a report with all epochs so far, as JSON."""

IsWhole: TypeAlias = Callable[[StoragePath], bool]
"""Whether a checkpoint's files are all there and undamaged; it logs what is wrong."""

CHECKPOINT = "checkpoint_"
"""Start of the names that Ray gives to the folders of checkpoints."""

SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray's list of a training's checkpoints. Ray ends a training whose list is damaged, or names a lost checkpoint."""

RESTARTS = 2
"""How often the group of workers is restarted before the training fails."""


class _GatherRows(torch.autograd.Function):
    """Rows of all ranks, in rank order; the gradient of a row is the sum of its gradients on all ranks."""

    @staticmethod
    def forward(_ctx: object, rows: torch.Tensor) -> torch.Tensor:
        all_rows = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(all_rows, rows.contiguous())
        return torch.cat(all_rows)

    @staticmethod
    def backward(_ctx: object, *gradients: torch.Tensor) -> torch.Tensor:
        (gradient,) = gradients
        gradient = gradient.contiguous()
        dist.all_reduce(gradient, op=dist.ReduceOp.SUM)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


def gather(rows: torch.Tensor) -> torch.Tensor:
    """Return the rows of all ranks, (rank pair) x dim, with gradient; all ranks must pass equally many.

    Every rank computes the loss on the gathered rows, and DDP averages the gradients over ranks. The result is exactly
    the gradient of that loss in one process.
    """
    return _GatherRows.apply(rows)  # type: ignore[no-any-return, no-untyped-call]  # torch types `apply` as Any


@dataclass(frozen=True)
class Worker:
    """One process of a training."""

    rank: int
    world: int
    device: torch.device
    in_sweep: bool = False
    """Whether every epoch is reported to a sweep."""
    checkpoints: StoragePath | None = None
    """The folder with the training's checkpoints."""

    def wrap(self, network: torch.nn.Module) -> torch.nn.Module:
        """Move a network to this worker's device; with several workers, average its gradients over them."""
        return ray.train.torch.prepare_model(network)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Average a tensor over the workers, without gradient."""
        if self.world == 1:
            return values
        values = values.clone()
        dist.all_reduce(values, op=dist.ReduceOp.SUM)
        return values / self.world

    def resume(self, is_whole: IsWhole) -> contextlib.AbstractContextManager[StoragePath | None]:
        """Yield the folder of the last checkpoint that is whole, or None without one; the same on every rank."""
        name: str | None = _last_whole(self.checkpoints, is_whole) if self.rank == 0 else None
        name = ray.train.collective.broadcast_from_rank_zero(name) if self.world > 1 else name
        return contextlib.nullcontext(self.checkpoints / name if self.checkpoints and name else None)

    def report(self, metrics: Values, folder: Path | None) -> None:
        """Report metrics and an optional checkpoint folder, which rank 0 wrote.

        A barrier: every rank must call it, equally often. Ray Train accepts a report about every two seconds, and the
        next one waits; so without a checkpoint, metrics are reported only to a sweep.
        """
        if folder is None and not self.in_sweep:
            return
        checkpoint = Checkpoint.from_directory(str(folder)) if folder is not None and self.rank == 0 else None
        ray.train.report(metrics, checkpoint=checkpoint)

    @contextlib.contextmanager
    def temporary_folder(self) -> Iterator[Path]:
        """Yield a folder on this machine, and delete it afterwards."""
        folder = Path(tempfile.mkdtemp(prefix="raystp-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class TrialWorker(Worker):
    """The only process of a sweep's trial; it reports to Ray Tune and resumes from Tune's checkpoints."""

    def resume(self, is_whole: IsWhole) -> contextlib.AbstractContextManager[StoragePath | None]:
        """Yield the folder of the trial's last checkpoint, or None without one that is whole."""
        return _folder(ray.tune.get_checkpoint(), is_whole)

    def report(self, metrics: Values, folder: Path | None) -> None:
        """Report metrics and an optional checkpoint to the sweep, which may stop the trial here."""
        ray.tune.report(metrics, checkpoint=ray.tune.Checkpoint.from_directory(str(folder)) if folder else None)


class LoneWorker(Worker):
    """The only process of a training that reports nothing and keeps no checkpoint: it needs no Ray."""

    def resume(self, is_whole: IsWhole) -> contextlib.AbstractContextManager[StoragePath | None]:  # noqa: ARG002 -- the base class's signature
        """Yield None: such a training starts from its beginning."""
        return contextlib.nullcontext()

    def report(self, metrics: Values, folder: Path | None) -> None:
        """Report nothing."""


def _last_whole(folder: StoragePath | None, is_whole: IsWhole) -> str | None:
    """Return the name of the last checkpoint that is whole; Ray names them by the time of their report."""
    names = [] if folder is None else [name for name in folder.names() if name.startswith(CHECKPOINT)]
    return next((name for name in sorted(names, reverse=True) if folder and is_whole(folder / name)), None)


@contextlib.contextmanager
def _folder(checkpoint: Checkpoint | None, is_whole: IsWhole) -> Iterator[StoragePath | None]:
    if checkpoint is None:
        yield None
        return
    with checkpoint.as_directory() as local:
        folder = StoragePath.of(local)
        yield folder if is_whole(folder) else None


_HOST: contextvars.ContextVar[Literal["driver", "trial", "process"]] = contextvars.ContextVar("host", default="driver")
"""What a training of one worker runs in: workers of its own, a trial of a sweep, or the calling process."""


@contextlib.contextmanager
def inside_trial() -> Iterator[None]:
    """Make trainings inside the context report to the sweep of this trial."""
    with _hosted("trial"):
        yield


@contextlib.contextmanager
def inside_process() -> Iterator[None]:
    """Run trainings of one worker inside the context in this process: without Ray, reports and checkpoints."""
    with _hosted("process"):
        yield


@contextlib.contextmanager
def _hosted(host: Literal["trial", "process"]) -> Iterator[None]:
    token = _HOST.set(host)
    try:
        yield
    finally:
        _HOST.reset(token)


def is_hosted() -> bool:
    """Return whether this code is in a trial or an `inside_process`, whose caller shows and logs the progress."""
    return _HOST.get() != "driver"


def is_in_process() -> bool:
    """Return whether this code is in an `inside_process`."""
    return _HOST.get() == "process"


@runtime_checkable
class WorkerTask(Protocol):
    """The work of one worker; it is pickled and sent to the workers, so it holds names and configs."""

    def __call__(self, worker: Worker) -> Values:
        """Train to the end; return plain values for the driver (those of rank 0 are used)."""


@dataclass(frozen=True)
class TrainResources:
    """Number of workers, and the resources of each; nothing here changes the result beyond rounding."""

    workers: int = 1
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0


def train(task: WorkerTask, resources: TrainResources, *, folder: StoragePath, name: str) -> Values:
    """Run the task on every worker and return the result of rank 0.

    Checkpoints are in `folder`/`name`; a training of this name resumes from the last one. Inside a trial of a sweep, a
    single worker is the trial's own process, and several workers report to the sweep; inside `inside_process` a single
    worker is this process. Raises ModelError with the message of a worker's RaystpError, or after too many restarts.
    """
    if is_hosted() and resources.workers == 1:
        kind = LoneWorker if is_in_process() else TrialWorker
        return task(kind(0, 1, torch.device("cuda" if resources.gpus_per_worker else "cpu")))
    check_resources(cpus=resources.cpus_per_worker, gpus=resources.gpus_per_worker)
    (folder / name / SNAPSHOT).remove()  # the workers find the checkpoints without it
    # By reference: Ray's controller reads the config too, and would import all that the task needs.
    reference = ray.put(task)
    trainer = TorchTrainer(
        _run,  # type: ignore[arg-type]  # Ray's annotation does not allow a return value
        train_loop_config={"task": [reference], "in_sweep": _HOST.get() == "trial", "checkpoints": folder / name},
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker={"CPU": resources.cpus_per_worker}
            | ({"GPU": resources.gpus_per_worker} if resources.gpus_per_worker else {}),
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
        raise ModelError(_message(error)) from error
    returned: Values = result.return_value  # type: ignore[attr-defined]  # as above
    return returned


def _callbacks() -> list[Any]:
    return [TuneReportCallback()] if _HOST.get() == "trial" else []  # type: ignore[no-untyped-call]  # Ray's own


def _run(config: Values) -> Values:
    context = ray.train.get_context()
    device = ray.train.torch.get_device()
    worker = Worker(
        context.get_world_rank(), context.get_world_size(), device, config["in_sweep"], config["checkpoints"]
    )
    task: WorkerTask = ray.get(config["task"][0])
    return task(worker)


def _message(error: TrainingFailedError) -> str:
    failures = error.worker_failures if isinstance(error, WorkerGroupError) else {}
    first: BaseException = error
    for failure in failures.values():
        cause: BaseException | None = failure
        while cause is not None:
            first, own = cause, unwrapped(cause)
            if isinstance(own, RaystpError):
                return str(own)
            cause = cause.__cause__
    return f"the training failed after {RESTARTS} restarts: {failure_reason(first)}"
