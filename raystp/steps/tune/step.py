"""tune: a train config + a search space -> a trials table, and the best trial as a train config.

Each trial is the train step itself under its overrides. They are compared on the validation side of the train config's
own split: who is held out for the test is never looked at.
"""

import json
import logging
from dataclasses import dataclass
from typing import Any

import yaml

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter, create_or_open, open_artifact
from raystp.cluster.session import cluster_cpus, cluster_gpus, session
from raystp.cluster.training.sweep_log import SweepLog
from raystp.cluster.training.trials import MODEL, Asha, SweepSearch, Trial, TrialLimits, sweep
from raystp.cluster.training.workers import HISTORY
from raystp.config import set_field
from raystp.errors import ConfigError, ModelError
from raystp.steps.train import step as train
from raystp.steps.train.config import TrainConfig
from raystp.steps.tune.config import TuneConfig
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

STEP = "tune"
CONFIG = TuneConfig


@dataclass(frozen=True)
class TrainTrial:
    """One trial: the train step with overrides, under a name of its own, logged by the sweep's driver."""

    config: TuneConfig
    name: str

    def __call__(self, number: int, overrides: dict[str, Any]) -> dict[str, Any]:
        """Train, or find what was trained before; return the score, the model's artifact and all its epochs."""
        named = {"name": f"{self.name}-{number:03d}", "run.tracking": "none"}
        artifact = train.run(self.config.training(overrides | named))
        rows = artifact.table("epochs.parquet", tables.EPOCHS).to_pylist()
        score = artifact.manifest.notes["score"][self.config.metric]
        return {self.config.metric: score, MODEL: artifact.manifest.folder, HISTORY: json.dumps(rows)}


def run(config: TuneConfig) -> Artifact:
    """Run the sweep, or what is left of it, and leave `trials.parquet` and `best.yaml`."""
    base = config.training()
    config.check_space()
    _check_metric(config, base)
    sources = train.open_sources(base)
    draft = create_or_open(config, STEP, train.inputs_of(base, sources))
    if isinstance(draft, Artifact):
        return draft
    tracker = config.run.tracker((sources.spots or sources.images).manifest.name)
    book = tracker.run_ref(f"{draft.name}-{draft.fingerprint}", draft.folder)
    logger.info(f"tune {base.model}: {config.trials} trials by {config.search} over {', '.join(config.space)}")
    log = SweepLog(tracker, book, draft.config, metric=config.metric, total=config.trials)
    with log:
        with session(config.run.address):
            work = TrainTrial(_located(config), f"{config.name}-{draft.fingerprint[:6]}")
            trials = sweep(
                work, _search(config, base), _limits(config, base), folder=draft.path, name="trials", observer=log
            )
        best = _best(trials, config)
        _write(draft, config, trials, best)
        log.close(trials, best.score, [f"{draft.folder}/{name}" for name in ("trials.parquet", "best.yaml")])
    if log.undelivered:
        logger.warning(f"  {log.undelivered}")
    (draft.path / "trials").remove()
    counts = {"trials": len(trials)} | {s: sum(one.status == s for one in trials) for s in ("finished", "stopped")}
    counts["failed"] = len(trials) - counts["finished"] - counts["stopped"]
    notes = {"best": best.number, "score": best.score, "metric": config.metric, "overrides": best.overrides}
    return draft.finish(counts, [], notes | {"summary": _summary(draft, config, trials, best)})


def _check_metric(config: TuneConfig, base: TrainConfig) -> None:
    """Raise ConfigError where the training has nothing to be compared by."""
    if not base.validates:
        msg = (
            "tune compares trials on a validation side: set split.validation (patients, sections or cases), or, with "
            "measured spots, split.validation_block (a share of each training section)"
        )
        raise ConfigError(msg)
    lacks_pcc, lacks_loss = base.trains_encoder, not base.method.is_trained
    if (lacks_pcc and config.metric == "validation_pcc") or (lacks_loss and config.metric == "validation_loss"):
        other = "validation_loss" if lacks_pcc else "validation_pcc"
        msg = f"metric: a training of this kind has no {config.metric}; there is {other}"
        raise ConfigError(msg)


def _located(config: TuneConfig) -> TuneConfig:
    """Return the config with the train config's values in it and absolute paths: a trial may be on another machine."""
    values = config.training().model_dump(mode="json", exclude_unset=True)
    store = StoragePath.of(config.run.store).uri
    set_field(values, "run.store", store, "run.store")
    return config.model_copy(update={"train": values, "run": config.run.model_copy(update={"store": store})})


def _search(config: TuneConfig, base: TrainConfig) -> SweepSearch:
    draw, *ends = config.space.get("fit.epochs", ["choice", base.fit.epochs])
    epochs = int(max(ends))
    asha = config.asha
    if asha is not None and asha.grace > epochs:
        msg = f"asha.grace: every trial is given {asha.grace} epochs, and fit.epochs is {epochs} ({draw})"
        raise ConfigError(msg)
    return SweepSearch(
        space=config.space,
        metric=config.metric,
        mode="max" if config.metric == "validation_pcc" else "min",
        trials=config.trials,
        by=config.search,
        seed=config.seed,
        asha=Asha(asha.grace, asha.reduction, epochs) if asha is not None else None,
    )


def _limits(config: TuneConfig, base: TrainConfig) -> TrialLimits:
    """Return what a trial's own process holds; where it has workers, they hold the rest, and bound how many fit."""
    run, concurrent = base.run, config.run.concurrent
    gpus = 1.0 if run.use_gpu else 0.0
    if run.workers == 1:
        return TrialLimits(concurrent, config.run.time_s, run.cpus_per_worker, gpus)
    held = run.workers * run.cpus_per_worker + 0.1
    fit = min(int(cluster_cpus() // held), cluster_gpus() // run.workers if run.use_gpu else 10**6)
    if fit < 1:
        needs = f"{held:.1f} CPUs" + (f" and {run.workers} GPUs" if run.use_gpu else "")
        msg = f"one trial of {run.workers} workers needs {needs}, the cluster has {cluster_cpus()} and {cluster_gpus()}"
        raise ConfigError(msg)
    return TrialLimits(min(fit, concurrent or fit), config.run.time_s, 0.1, 0.0)


def _best(trials: list[Trial], config: TuneConfig) -> Trial:
    """Return the best of the trials that came to their end, the first of equals."""
    sign = 1 if config.metric == "validation_loss" else -1
    finished = [one for one in trials if one.status == "finished" and one.score is not None]
    if finished:
        return min(finished, key=lambda one: (sign * float(one.score or 0.0), one.number))
    reasons = [one.reason for one in trials if one.reason]
    why = f"; the first of {len(reasons)} that failed said: {reasons[0]}" if reasons else ": allow more time or epochs"
    msg = f"none of {len(trials)} trials came to its end{why}"
    raise ModelError(msg)


def _write(draft: ArtifactWriter, config: TuneConfig, trials: list[Trial], best: Trial) -> None:
    rows: list[dict[str, Any]] = [
        {
            "trial": one.number,
            "status": one.status,
            "score": one.score,
            "epochs": one.epochs,
            "overrides": json.dumps(one.overrides),
            "model": one.model,
            "reason": one.reason,
            "seconds": one.seconds,
        }
        for one in trials
    ]
    (draft.path / "trials.parquet").write_table(tables.of_rows(rows, tables.TRIALS))
    (draft.path / "best.yaml").write_bytes(_best_yaml(draft, config, best).encode())


def _best_yaml(draft: ArtifactWriter, config: TuneConfig, best: Trial) -> str:
    """Return the best trial as a train config: the sweep's own values, its overrides, and the very inputs it read."""
    values = config.values()
    for key, value in best.overrides.items():
        set_field(values, key, value, key)
    model = open_artifact(draft.path.parent.parent / str(best.model), "train")
    if "spots" in model.manifest.inputs:
        values["spots"] = model.manifest.inputs["spots"]
    values["tiles" if values.get("tiles") else "embeddings"] = model.manifest.inputs["images"]
    values["name"] = f"{config.name}-best"
    values["run"] = {key: value for key, value in values["run"].items() if value is not None}
    values["run"]["store"] = str(draft.path.parent.parent)
    head = f"# Trial {best.number} of {draft.folder}: {config.metric} {best.score:.6f}\n"
    return head + yaml.safe_dump(values, sort_keys=False)


def _summary(draft: ArtifactWriter, config: TuneConfig, trials: list[Trial], best: Trial) -> str:
    sign = 1 if config.metric == "validation_loss" else -1
    scored = [one for one in trials if one.score is not None]
    scored.sort(key=lambda one: (one.status != "finished", sign * float(one.score or 0.0)))
    lines = [f"trial  {config.metric:<15}  epochs  status    overrides"]
    for one in scored:
        values = ", ".join(f"{key}={_short(value)}" for key, value in one.overrides.items())
        lines.append(f"{one.number:5d}  {one.score:<15.4f}  {one.epochs:6d}  {one.status:<8}  {values}")
    best_file = draft.path / "best.yaml"
    return "\n".join([*lines, "", f"best: trial {best.number}; `raystp train --config {best_file}` trains it again"])


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
