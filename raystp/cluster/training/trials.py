"""A sweep on Ray Tune: trials of the same work with different overrides; bad trials are stopped early.

Tune keeps the sweep's state in `folder`/`name`. A killed sweep resumes from there, and its running trials from their
checkpoints. Tune saves that state only every few seconds, so each trial's outcome is also recorded at once; a trial
that Tune starts again reports its record. Tune's state is Ray's pickle, the only file that is unpickled here: resume
sweeps only from a store that no other user can write to.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import optuna
from optuna.samplers import RandomSampler, TPESampler
from ray import tune
from ray.tune import Callback, Tuner
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.search.optuna import OptunaSearch

from raystp.cluster.training.workers import HISTORY, inside_trial
from raystp.errors import RaystpError
from raystp.storage import StoragePath

TUNE_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # trials name their files by absolute paths
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # they would write each epoch three more times
    "RAY_AIR_NEW_OUTPUT": "0",  # the newer output prints its tables at every verbosity
}
"""Settings that Ray Tune reads from the environment only."""

FAILED, MODEL, STOPPED = "failed", "model", "stopped"
"""Keys of a trial's last report: its error message; or its model's artifact; or, for a trial stopped before the sweep
was killed, its number of epochs."""

RETRIES = 2
"""How often a trial is started again after its process crashed."""

Report: TypeAlias = dict[str, Any]
"""A trial's report, or the row of an epoch: JSON values."""
Overrides: TypeAlias = dict[str, object]


@dataclass(frozen=True)
class Asha:
    """Asynchronous successive halving: at 1, r, r^2 ... times `grace` epochs, only the best 1/r of trials continue."""

    grace: int
    reduction: float
    epochs: int


@dataclass(frozen=True)
class SweepSearch:
    """The search space and the sampler."""

    space: Mapping[str, Sequence[object]]
    """Dotted override -> [name in DISTRIBUTIONS, its arguments]."""
    metric: str
    mode: Literal["max", "min"]
    trials: int
    by: Literal["optuna", "random"]
    seed: int
    asha: Asha | None


@dataclass(frozen=True)
class TrialLimits:
    """Concurrency, time limit, and the resources of a trial's own process."""

    concurrent: int | None
    time_s: float | None
    cpus: float
    gpus: float


@dataclass(frozen=True)
class Trial:
    """The outcome of a trial: finished with a model, stopped early, or failed with a message."""

    number: int
    overrides: Overrides
    status: Literal["finished", "stopped", "failed"]
    score: float | None
    epochs: int
    model: str | None = None
    reason: str | None = None
    history: Sequence[Report] = ()
    seconds: float = 0.0


@runtime_checkable
class TrialWork(Protocol):
    """The work of a trial; it is pickled and sent to the trial's process, so it holds names and configs."""

    def __call__(self, number: int, overrides: Overrides) -> Report:
        """Train, and return the score under the metric's name, with MODEL and HISTORY."""


@runtime_checkable
class TrialObserver(Protocol):
    """Gets the events of the trials, on the driver."""

    def on_start(self, number: int, overrides: Overrides) -> None:
        """Handle the start, or a restart, of a trial."""

    def on_epoch(self, number: int, metrics: Report) -> None:
        """Handle the report of an epoch."""

    def on_end(self, trial: Trial) -> None:
        """Handle the end of a trial."""


def sweep(
    work: TrialWork,
    search: SweepSearch,
    limits: TrialLimits,
    *,
    folder: StoragePath,
    name: str,
    observer: TrialObserver,
) -> list[Trial]:
    """Run the trials, or the rest of an earlier sweep of this name; return all, by number."""
    records = folder / name / "ended"
    _TuneCallback.observer, _TuneCallback.metric = observer, search.metric
    _TuneCallback.records, _TuneCallback.trials = records, []
    os.environ |= TUNE_ENVIRONMENT
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trainable = tune.with_resources(
        tune.with_parameters(_run_trial, work=work, metric=search.metric, records=records),
        {"CPU": limits.cpus} | ({"GPU": limits.gpus} if limits.gpus else {}),
    )
    storage = folder.for_ray()
    path, filesystem = f"{storage['storage_path']}/{name}", storage.get("storage_filesystem")
    if Tuner.can_restore(path, storage_filesystem=filesystem):
        tuner = Tuner.restore(path, trainable, restart_errored=True, storage_filesystem=filesystem)
    else:
        tuner = Tuner(
            trainable,
            param_space={key: _distribution(str(kind), arguments) for key, (kind, *arguments) in search.space.items()},
            tune_config=_tune_config(search, limits),
            run_config=_run_config(name, storage),
        )
    tuner.fit()
    return sorted(_TuneCallback.trials, key=lambda trial: trial.number)


def _distribution(name: str, arguments: Sequence[object]) -> Any:
    return tune.choice(list(arguments)) if name == "choice" else getattr(tune, name)(*arguments)


def _run_config(name: str, storage: Mapping[str, Any]) -> tune.RunConfig:
    return tune.RunConfig(
        name=name,
        **storage,
        verbose=0,
        callbacks=[_TuneCallback()],
        failure_config=tune.FailureConfig(max_failures=RETRIES),
        checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
    )


def _tune_config(search: SweepSearch, limits: TrialLimits) -> tune.TuneConfig:
    sampler = TPESampler if search.by == "optuna" else RandomSampler
    return tune.TuneConfig(
        metric=search.metric,
        mode=search.mode,
        num_samples=search.trials,
        max_concurrent_trials=limits.concurrent,
        time_budget_s=limits.time_s,
        trial_name_creator=_name,
        trial_dirname_creator=_name,
        search_alg=OptunaSearch(sampler=sampler(seed=search.seed)),
        scheduler=_halving(search.asha) if search.asha is not None else None,
    )


def _halving(asha: Asha) -> AsyncHyperBandScheduler:
    return AsyncHyperBandScheduler(
        time_attr="epochs",
        max_t=asha.epochs,
        grace_period=asha.grace,
        reduction_factor=asha.reduction,
        stop_last_trials=False,  # a trial at its last epoch still has to write its model
    )


def _run_trial(config: Overrides, work: TrialWork, metric: str, records: StoragePath) -> None:
    """Run one trial, in its own process."""
    name = str(tune.get_context().get_trial_name())
    report = _read_record(records / f"{name}.json", config)
    if report is None:
        with inside_trial():
            try:
                report = work(int(name), config)
            except RaystpError as error:
                # Expected errors repeat at every try: report them, without a retry.
                report = {metric: math.nan, FAILED: f"{type(error).__name__}: {error}"}
    tune.report(report)


def _write_record(file: StoragePath, trial: Trial, metric: str) -> None:
    """Record a trial's outcome in the form of its last report."""
    report: Report = {metric: trial.score, HISTORY: json.dumps(trial.history)}
    report |= {MODEL: trial.model} if trial.model else {FAILED: trial.reason} if trial.reason else {}
    report |= {} if trial.model or trial.reason else {STOPPED: trial.epochs}
    file.write_bytes(json.dumps({"overrides": trial.overrides, "report": report}).encode())


def _read_record(file: StoragePath, overrides: Overrides) -> Report | None:
    """Return the last report of an ended trial; None if there is no record, or one of other overrides."""
    if not file.exists():
        return None
    record = json.loads(file.read_bytes())
    if record["overrides"] != overrides:
        return None
    return {key: math.nan if value is None else value for key, value in record["report"].items()}


class _TuneCallback(Callback):
    """Forward Tune's events to the observer. Tune pickles its callbacks, so the state is in the class."""

    observer: TrialObserver
    metric: str
    records: StoragePath
    trials: list[Trial]

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: object) -> None:  # noqa: ARG002 -- Tune's signature
        self.observer.on_start(int(_name(trial)), dict(trial.config))

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002 -- the same
        trials: list[TuneTrial],  # noqa: ARG002 -- the same
        trial: TuneTrial,
        result: Report,
        **_: object,
    ) -> None:
        if not {MODEL, FAILED, STOPPED} & result.keys():
            self.observer.on_epoch(int(_name(trial)), result)

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: object) -> None:  # noqa: ARG002 -- the same
        outcome = _outcome(trial, self.metric)
        _write_record(self.records / f"{_name(trial)}.json", outcome, self.metric)
        self.observer.on_end(outcome)

    def on_experiment_end(self, trials: list[TuneTrial], **_: object) -> None:
        _TuneCallback.trials = [_outcome(trial, self.metric) for trial in trials]


def _outcome(trial: TuneTrial, metric: str) -> Trial:
    """Convert one of Tune's trials."""
    last: Report = trial.last_result or {}
    history = json.loads(last.get(HISTORY, "[]"))
    score = float(last.get(metric, math.nan))
    epochs: int = last.get("epochs", 0)
    reason = last.get(FAILED)
    if reason is None and trial.status == "ERROR":
        error = str(trial.get_error() or "its process died").strip()
        reason = error.rpartition("\n")[2] or error
    status: Literal["finished", "stopped", "failed"] = "finished" if MODEL in last else "stopped"
    return Trial(
        number=int(_name(trial)),
        overrides=dict(trial.config),
        status=status if reason is None else "failed",
        score=score if math.isfinite(score) else None,
        epochs=len(history) or int(last.get(STOPPED, epochs)),
        model=last.get(MODEL),
        reason=reason,
        history=history,
        seconds=float(last.get("time_total_s", 0.0)),
    )


def _name(trial: TuneTrial) -> str:
    """Name a trial by its number in the sweep, from 0; Tune's names are random, its tags are `<number>_<values>`."""
    return f"{int(str(trial.experiment_tag).partition('_')[0]) - 1:03d}"
