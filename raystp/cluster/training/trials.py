"""A sweep on Ray Tune: trials of one piece of work under different overrides, cut short where they fall behind.

Tune keeps the sweep's state in `folder`/`name`: a sweep that was killed goes on from there, its running trials from
their checkpoints. Tune saves that state every few seconds only, so how a trial ended is also written down at once, and
a trial that Tune would start again reports what stands there. Tune's state is Ray's own pickle, the one thing here
that is unpickled: resume sweeps only from a store that nobody else can write to.
"""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import optuna
from optuna.samplers import RandomSampler, TPESampler
from ray import tune
from ray.tune import Callback, Tuner
from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.search.optuna import OptunaSearch

from raystp.cluster.training.workers import HISTORY, trial
from raystp.errors import RaystpError
from raystp.storage import StoragePath

DISTRIBUTIONS: dict[str, Callable[..., Any]] = {
    "choice": lambda *values: tune.choice(list(values)),
    "uniform": tune.uniform,
    "loguniform": tune.loguniform,
    "quniform": tune.quniform,
    "randint": tune.randint,
    "lograndint": tune.lograndint,
}
"""Name -> Ray Tune's distribution; the ends of `randint` and `lograndint` are the first that are not drawn."""

QUIET = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a trial names its files by absolute paths
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # they would write each epoch three times more
    "RAY_AIR_NEW_OUTPUT": "0",  # the newer output prints its tables at every verbosity
}
"""What Ray Tune reads from the environment alone."""

FAILED, MODEL, STOPPED = "failed", "model", "stopped"
"""Keys of a trial's last report: the sentence it failed with; or its model's artifact; or, where it was stopped before
the sweep was killed, after how many epochs."""

RETRIES = 2
"""How often a trial is started again whose process died."""


@dataclass(frozen=True)
class Asha:
    """Asynchronous successive halving: at 1, r, r^2 ... times `grace` epochs, only the best 1/r go on."""

    grace: int
    reduction: float
    epochs: int


@dataclass(frozen=True)
class SweepSearch:
    """What is searched, and by what."""

    space: Mapping[str, Sequence[Any]]
    """Dotted override -> [name in DRAWS, its arguments]."""
    metric: str
    mode: Literal["max", "min"]
    trials: int
    by: Literal["optuna", "random"]
    seed: int
    asha: Asha | None


@dataclass(frozen=True)
class TrialLimits:
    """How wide and how long; one trial's own process holds `cpus` and `gpus`."""

    concurrent: int | None
    time_s: float | None
    cpus: float
    gpus: float


@dataclass(frozen=True)
class Trial:
    """One trial as it ended: finished with a model, stopped before its end, or failed with a sentence."""

    number: int
    overrides: dict[str, Any]
    status: Literal["finished", "stopped", "failed"]
    score: float | None
    epochs: int
    model: str | None = None
    reason: str | None = None
    history: Sequence[Mapping[str, Any]] = ()
    seconds: float = 0.0


@runtime_checkable
class TrialWork(Protocol):
    """What a trial does; it travels to its process, so it holds names and configs."""

    def __call__(self, number: int, overrides: dict[str, Any]) -> dict[str, Any]:
        """Train, and return the score under the metric's name, with MODEL and HISTORY."""


@runtime_checkable
class TrialObserver(Protocol):
    """Who is told, on the driver, what the trials do."""

    def began(self, number: int, overrides: dict[str, Any]) -> None:
        """A trial starts, or starts again."""

    def epoch(self, number: int, metrics: Mapping[str, Any]) -> None:
        """A trial has reported an epoch."""

    def ended(self, one: Trial) -> None:
        """A trial has ended."""


def sweep(
    work: TrialWork, search: SweepSearch, limits: TrialLimits, *, folder: StoragePath, name: str, watch: TrialObserver
) -> list[Trial]:
    """Run the trials, or those that are left of an earlier run of this name; return all, by number."""
    ended = folder / name / "ended"
    _TuneCallback.watch, _TuneCallback.metric, _TuneCallback.records, _TuneCallback.trials = (
        watch,
        search.metric,
        ended,
        [],
    )
    os.environ |= QUIET
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trainable = tune.with_resources(
        tune.with_parameters(_run, work=work, metric=search.metric, ended=ended),
        {"CPU": limits.cpus} | ({"GPU": limits.gpus} if limits.gpus else {}),
    )
    where = folder.for_ray()
    path, fs = f"{where['storage_path']}/{name}", where.get("storage_filesystem")
    if Tuner.can_restore(path, storage_filesystem=fs):
        tuner = Tuner.restore(path, trainable, restart_errored=True, storage_filesystem=fs)
    else:
        tuner = Tuner(
            trainable,
            param_space={key: DISTRIBUTIONS[draw](*ends) for key, (draw, *ends) in search.space.items()},
            tune_config=_tune_config(search, limits),
            run_config=tune.RunConfig(
                name=name,
                **where,
                verbose=0,
                callbacks=[_TuneCallback()],
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            ),
        )
    tuner.fit()
    return sorted(_TuneCallback.trials, key=lambda one: one.number)


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
        stop_last_trials=False,  # a trial at its end still has to write its model
    )


def _run(config: dict[str, Any], work: TrialWork, metric: str, ended: StoragePath) -> None:
    """Be one trial, in its own process."""
    name = str(tune.get_context().get_trial_name())
    found = _recorded(ended / f"{name}.json", config)
    if found is None:
        with trial():
            try:
                found = work(int(name), config)
            except RaystpError as error:
                # A foreseen failure is the same at every try: it is reported, not raised.
                found = {metric: math.nan, FAILED: f"{type(error).__name__}: {error}"}
    tune.report(found)


def _record(file: StoragePath, one: Trial, metric: str) -> None:
    """Write down how a trial ended, as its last report would say it."""
    report: dict[str, Any] = {metric: one.score, HISTORY: json.dumps(one.history)}
    report |= {MODEL: one.model} if one.model else {FAILED: one.reason} if one.reason else {STOPPED: one.epochs}
    file.write_bytes(json.dumps({"overrides": one.overrides, "report": report}).encode())


def _recorded(file: StoragePath, overrides: dict[str, Any]) -> dict[str, Any] | None:
    """Return the last report of a trial that had ended with these overrides, if there was one."""
    if not file.exists():
        return None
    found = json.loads(file.read_bytes())
    if found["overrides"] != overrides:
        return None
    return {key: math.nan if value is None else value for key, value in found["report"].items()}


class _TuneCallback(Callback):
    """Tell the watch of this process; Tune pickles its callbacks, so this one holds nothing."""

    watch: TrialObserver
    metric: str
    records: StoragePath
    trials: list[Trial]

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:  # noqa: ARG002 -- Tune's signature
        self.watch.began(int(_name(trial)), dict(trial.config))

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002 -- the same
        trials: list[Any],  # noqa: ARG002 -- the same
        trial: Any,
        result: dict[str, Any],
        **_: Any,
    ) -> None:
        if not {MODEL, FAILED, STOPPED} & result.keys():
            self.watch.epoch(int(_name(trial)), result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:  # noqa: ARG002 -- the same
        one = _trial(trial, self.metric)
        _record(self.records / f"{_name(trial)}.json", one, self.metric)
        self.watch.ended(one)

    def on_experiment_end(self, trials: list[Any], **_: Any) -> None:
        _TuneCallback.trials = [_trial(one, self.metric) for one in trials]


def _trial(one: Any, metric: str) -> Trial:
    """Return what Tune knows of a trial, in the terms of this module."""
    last: dict[str, Any] = one.last_result or {}
    history = json.loads(last.get(HISTORY, "[]"))
    score = float(last.get(metric, math.nan))
    status: Literal["finished", "stopped", "failed"] = "stopped"
    reason = last.get(FAILED)
    if reason is None and one.status == "ERROR":
        error = str(one.get_error() or "its process died").strip()
        reason = error.rpartition("\n")[2] or error
    if reason is not None:
        status = "failed"
    elif MODEL in last:
        status = "finished"
    return Trial(
        number=int(_name(one)),
        overrides=dict(one.config),
        status=status,
        score=score if math.isfinite(score) else None,
        epochs=len(history) or int(last.get(STOPPED, last.get("epochs", 0))),
        model=last.get(MODEL),
        reason=reason,
        history=history,
        seconds=float(last.get("time_total_s", 0.0)),
    )


def _name(one: Any) -> str:
    """Name a trial by its place in the sweep, from 0; Tune's own names are random. Its tags are `<place>_<values>`."""
    return f"{int(str(one.experiment_tag).partition('_')[0]) - 1:03d}"
