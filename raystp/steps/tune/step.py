"""tune: a train config + a search space -> a trials table, and the best trial as a train config.

Each trial is the train step with overrides. Trials are compared on the validation side of the train config's split, or,
with its `fit.select: cv`, by their mean over the folds of its training side; the test side is never read.
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
from raystp.cluster.training.workers import HISTORY, inside_process
from raystp.config import set_field
from raystp.errors import ConfigError, ModelError
from raystp.evaluate.protocols import protocol_of
from raystp.steps.embedding_source import input_folders
from raystp.steps.train import step as train
from raystp.steps.train.choice.candidates import CV
from raystp.steps.train.config import TrainConfig
from raystp.steps.train.spots.config import SpotsTrainConfig
from raystp.steps.train.spots.plan import split_sections
from raystp.steps.tune.chart import parallel_coordinates
from raystp.steps.tune.config import TuneConfig
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

STEP = "tune"
CHART = "trials.png"
CONFIG = TuneConfig


@dataclass(frozen=True)
class TrainTrial:
    """One trial: the train step with overrides and its own name; the sweep's driver logs it."""

    config: TuneConfig
    name: str

    def __call__(self, number: int, overrides: dict[str, Any]) -> dict[str, Any]:
        """Train, or reuse a finished training; return the score, the model's artifact and all epochs."""
        named = {"name": f"{self.name}-{number:03d}", "run.tracking": "none"}
        config = self.config.training(overrides | named)
        if config.fit.select == CV:
            return self._over_folds(config)
        artifact = train.run(config)
        rows = artifact.table("epochs.parquet", tables.EPOCHS).to_pylist()
        score = artifact.manifest.notes["score"][self.config.metric]
        return {self.config.metric: score, MODEL: artifact.manifest.folder, HISTORY: json.dumps(rows)}

    def _over_folds(self, config: TrainConfig) -> dict[str, Any]:
        """Choose on the folds in this process; the score is the mean over them, and the model that of all sections."""
        with inside_process():
            artifact = train.run(config)
        chosen = artifact.manifest.notes["cv"]
        rows = artifact.table("epochs.parquet", tables.EPOCHS).to_pylist()
        for row, pcc in zip(rows, chosen["curve"], strict=False):
            row["validation_pcc"] = pcc
        return {self.config.metric: chosen["pcc"], MODEL: artifact.manifest.folder, HISTORY: json.dumps(rows)}


def run(config: TuneConfig) -> Artifact:
    """Run the sweep, or the rest of an interrupted one; write `trials.parquet` and `best.yaml`."""
    base = config.training()
    config.check_space()
    _check_metric(config, base)
    sources = train.open_sources(base)
    if isinstance(base, SpotsTrainConfig) and sources.spots is not None:
        split_sections(base, sources.spots, sources.images, protocol_of(base.split.protocol))  # for its checks
    writer = create_or_open(config, STEP, train.inputs_of(base, sources))
    if isinstance(writer, Artifact):
        return writer
    tracker = config.run.tracker((sources.spots or sources.images).manifest.name)
    book = tracker.run_ref(f"{writer.name}-{writer.fingerprint}", writer.folder)
    logger.info(f"tune {base.model}: {config.trials} trials by {config.search} over {', '.join(config.space)}")
    log = SweepLog(tracker, book, writer.config, metric=config.metric, total=config.trials)
    with log:
        with session(config.run.address):
            work = TrainTrial(_located(config), f"{config.name}-{writer.fingerprint[:6]}")
            trials = sweep(
                work, _search(config, base), _limits(config, base), folder=writer.path, name="trials", observer=log
            )
        best = _best(trials, config)
        refit = _refit(writer, config, best) if config.refit else None
        files = _write(writer, config, trials, best)
        summary = _summary(writer, config, trials, best)
        note = f"Best: trial {best.number}, {config.metric} {best.score:.4f}\n\n```\n{summary}\n```"
        log.close(trials, best, [f"{writer.folder}/{name}" for name in files], note=note)
    if log.undelivered:
        logger.warning(f"  {log.undelivered}")
    (writer.path / "trials").remove()
    counts = {"trials": len(trials)} | {s: sum(one.status == s for one in trials) for s in ("finished", "stopped")}
    counts["failed"] = len(trials) - counts["finished"] - counts["stopped"]
    notes: dict[str, Any] = {"best": best.number, "score": best.score, "metric": config.metric}
    notes["overrides"] = best.overrides
    if refit is not None:
        notes["refit"] = refit.manifest.folder
        summary += f"\nrefit: {refit.path}, on the training and validation sides"
    return writer.finish(counts, [], notes | {"summary": summary})


def _check_metric(config: TuneConfig, base: TrainConfig) -> None:
    """Raise ConfigError where the training has no score that trials can be compared by."""
    if base.fit.select == CV:
        if config.metric != "validation_pcc":
            msg = f"metric: fit.select={CV} compares trials by their mean PCC over the folds; set metric=validation_pcc"
            raise ConfigError(msg)
        if config.asha is not None and "asha" in config.model_fields_set:
            msg = (
                f"asha stops trials by their epochs, and with fit.select={CV} a trial has one score over its folds: "
                "remove `asha`, or set fit.select=best_pcc with a validation side in the train config"
            )
            raise ConfigError(msg)
        return
    if not base.validates:
        msg = (
            "tune compares trials on a validation side: set split.validation (patients, sections or cases), or, with "
            f"measured spots, split.validation_block (a share of each training section) or fit.select={CV} (each "
            "training patient in turn)"
        )
        raise ConfigError(msg)
    if config.metric == "validation_loss" and not base.method.is_trained:
        msg = f"metric: this training has no {config.metric}; set metric=validation_pcc"
        raise ConfigError(msg)


def _located(config: TuneConfig) -> TuneConfig:
    """Return the config with the train config's values and absolute paths: a trial may run on another machine."""
    values = config.training().model_dump(mode="json", exclude_unset=True)
    store = StoragePath.of(config.run.store).uri
    set_field(values, "run.store", store, "run.store")
    return config.model_copy(update={"train": values, "run": config.run.model_copy(update={"store": store})})


def _search(config: TuneConfig, base: TrainConfig) -> SweepSearch:
    name, *bounds = config.space.get("fit.epochs", ["choice", base.fit.epochs])
    epochs = int(max(bounds))
    asha = config.asha if base.fit.select != CV else None  # a trial over folds reports no epochs
    if asha is not None and asha.grace > epochs:
        msg = f"asha.grace: {asha.grace} exceeds the {epochs} epochs of a trial (fit.epochs, {name}); lower it"
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
    """Return the resources of a trial's own process; with several workers, these hold the CPUs and limit the trials."""
    run, concurrent = base.run, config.run.concurrent
    gpus = 1.0 if run.use_gpu else 0.0
    if run.workers == 1:
        return TrialLimits(concurrent, config.run.time_s, run.cpus_per_worker, gpus)
    held = run.workers * run.cpus_per_worker + 0.1
    fit = min(int(cluster_cpus() // held), cluster_gpus() // run.workers if run.use_gpu else 10**6)
    if fit < 1:
        needs = f"{held:.1f} CPUs" + (f" and {run.workers} GPUs" if run.use_gpu else "")
        msg = f"one trial of {run.workers} workers needs {needs}; the cluster has {cluster_cpus()} and {cluster_gpus()}"
        raise ConfigError(msg)
    return TrialLimits(min(fit, concurrent or fit), config.run.time_s, 0.1, 0.0)


def _best(trials: list[Trial], config: TuneConfig) -> Trial:
    """Return the best of the finished trials; of equal ones the first."""
    sign = 1 if config.metric == "validation_loss" else -1
    finished = [one for one in trials if one.status == "finished" and one.score is not None]
    if finished:
        return min(finished, key=lambda one: (sign * float(one.score or 0.0), one.number))
    reasons = [one.reason for one in trials if one.reason]
    why = f"; the first of {len(reasons)} failures: {reasons[0]}" if reasons else ": raise run.time_s or fit.epochs"
    msg = f"none of {len(trials)} trials finished{why}"
    raise ModelError(msg)


def _refit(writer: ArtifactWriter, config: TuneConfig, best: Trial) -> Artifact:
    """Train the best config on both sides, without a validation, for as many epochs as its trial chose.

    The test side stays as it is. A side that the config does not name takes the validation side in by itself.
    """
    located = _located(config)
    tried = located.training(best.overrides)
    trial = open_artifact(writer.path.parent.parent / str(best.model), "train")
    if tried.fit.select == CV:
        run = {**located.values()["run"], "tracking": config.run.tracking}
        return train.run(TrainConfig.of({**trial.manifest.config, "name": f"{config.name}-refit", "run": run}))
    chosen: dict[str, Any] = {"name": f"{config.name}-refit", "split.validation": []}
    if tried.split.train is not None:
        chosen["split.train"] = list(dict.fromkeys([*tried.split.train, *tried.split.validation]))
    if getattr(tried.split, "validation_block", 0):
        chosen["split.validation_block"] = 0.0
    if tried.method.is_trained:
        epochs = int(trial.manifest.notes["score"]["epoch"]) + 1
        chosen |= {"fit.epochs": epochs, "fit.select": "last", "fit.patience": None}
    if config.run.tracking is not None:
        chosen["run.tracking"] = config.run.tracking
    logger.info(f"tune: trial {best.number} is trained again, on the training and validation sides")
    return train.run(located.training(best.overrides | chosen))


def _write(writer: ArtifactWriter, config: TuneConfig, trials: list[Trial], best: Trial) -> list[str]:
    """Write the table, the best config and the chart; return their names."""
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
    (writer.path / "trials.parquet").write_table(tables.of_rows(rows, tables.TRIALS))
    (writer.path / "best.yaml").write_bytes(_best_yaml(writer, config, best).encode())
    chart = parallel_coordinates(trials, config.space, config.metric, maximise=config.metric == "validation_pcc")
    if chart is None:
        return ["trials.parquet", "best.yaml"]
    (writer.path / CHART).write_bytes(chart)
    return ["trials.parquet", "best.yaml", CHART]


def _best_yaml(writer: ArtifactWriter, config: TuneConfig, best: Trial) -> str:
    """Return the best trial as a train config: the sweep's values, the trial's overrides and its exact inputs."""
    values = config.values()
    for key, value in best.overrides.items():
        set_field(values, key, value, key)
    model = open_artifact(writer.path.parent.parent / str(best.model), "train")
    for role in ("spots", "completed"):
        if role in model.manifest.inputs:
            values[role] = model.manifest.inputs[role]
    images = input_folders(model.manifest.inputs, "images")
    values["tiles" if values.get("tiles") else "embeddings"] = images if len(images) > 1 else images[0]
    values["name"] = f"{config.name}-best"
    values["run"] = {key: value for key, value in values["run"].items() if value is not None}
    values["run"]["store"] = str(writer.path.parent.parent)
    head = f"# Trial {best.number} of {writer.folder}: {config.metric} {best.score:.6f}\n"
    return head + yaml.safe_dump(values, sort_keys=False)


def _summary(writer: ArtifactWriter, config: TuneConfig, trials: list[Trial], best: Trial) -> str:
    sign = 1 if config.metric == "validation_loss" else -1
    scored = [one for one in trials if one.score is not None]
    scored.sort(key=lambda one: (one.status != "finished", sign * float(one.score or 0.0)))
    lines = [f"trial  {config.metric:<15}  epochs  status    overrides"]
    for one in scored:
        values = ", ".join(f"{key}={_short(value)}" for key, value in one.overrides.items())
        lines.append(f"{one.number:5d}  {one.score:<15.4f}  {one.epochs:6d}  {one.status:<8}  {values}")
    best_file = writer.path / "best.yaml"
    return "\n".join([*lines, "", f"best: trial {best.number}; `raystp train --config {best_file}` repeats it"])


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
