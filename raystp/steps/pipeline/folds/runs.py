"""Folds of a pipeline, several at once: each trains, predicts and evaluates in a Ray task of its own.

A fold that fails is named, and the others go on. What is finished is kept, so the same command does only the rest.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raystp.artifacts import Artifact
from raystp.cluster.session import MIN_CPUS, cluster_cpus
from raystp.cluster.side_by_side import run_parts
from raystp.config import Config, relative_paths, set_field
from raystp.errors import RaystpError, some
from raystp.steps.complete import step as complete
from raystp.steps.embed import step as embed
from raystp.steps.evaluate import step as evaluate
from raystp.steps.impute import step as impute
from raystp.steps.impute.config import ImputeConfig
from raystp.steps.index import step as index
from raystp.steps.pipeline.chain import ScoreInputs, StepChain
from raystp.steps.pipeline.config import PipelineConfig, Values
from raystp.steps.pipeline.folds.fold import Fold
from raystp.steps.spots import step as spots
from raystp.steps.tile import step as tile
from raystp.steps.train import step as train
from raystp.steps.train.config import TrainConfig

logger = logging.getLogger("raystp")

STEPS: dict[str, Any] = {one.STEP: one for one in (spots, tile, embed, complete, train, index, impute, evaluate)}

Found = dict[str, Artifact]
"""Role -> artifact."""


@dataclass(frozen=True)
class FoldWork:
    """The work of one fold; it is sent to another process, so it holds configs and references."""

    config: PipelineConfig
    inputs: ScoreInputs
    fold: Fold
    made: Mapping[str, str]
    """`step/name` of each artifact that all folds share -> its reference."""
    folder: str
    """The folder that relative paths of the config start from."""


@dataclass
class StepRunner:
    """Runs the steps of a walk through the chain (`chain.Execute`), and keeps their artifacts."""

    config: PipelineConfig
    folder: str
    """The folder that relative paths of the config start from."""
    found: Found = field(default_factory=dict)

    def __call__(self, step: str, role: str, sources: Values, values: Values) -> Artifact:
        """Run a step on what the pipeline fills in and on its own values."""
        logger.info(f"pipeline: {role}")
        config = self.config.of_step(STEPS[step].CONFIG, role, sources, values)
        self.found[role] = STEPS[step].run(from_folder(config, self.folder))
        return self.found[role]


@dataclass(frozen=True)
class FoldResult:
    """The artifacts of one fold, and the references to its predictions."""

    found: Found
    predictions: list[str]


def run_fold(work: FoldWork) -> FoldResult:
    """Run the steps of one fold."""
    runner = StepRunner(work.config, work.folder)
    predictions = StepChain(work.config, runner, dict(work.made)).score(work.inputs, work.fold)
    return FoldResult(runner.found, predictions)


def run_folds(config: PipelineConfig, chain: StepChain, inputs: ScoreInputs, steps: Iterable[Any]) -> list[FoldResult]:
    """Run all folds; return their results in the order of the folds. `steps` are the planned configs of all steps.

    Raises the first fold's error, with the names of all folds that failed, once the others are finished.
    """
    folds = [one for one in chain.find_folds(inputs) if one is not None]
    folder = str(Path.cwd())
    parts = {f"fold {one.number}": FoldWork(config, inputs, one, chain.made, folder) for one in folds}
    at_once = min(len(folds), folds_at_once(config, steps, cluster_cpus()))
    if at_once > 1:
        logger.info(f"pipeline: {len(folds)} folds, {at_once} at a time")
    results: dict[str, FoldResult] = {}
    errors: dict[str, RaystpError] = {}
    for label, result in run_parts(run_fold, parts, at_once=at_once):
        if isinstance(result, RaystpError):
            errors[label] = result
            logger.warning(f"pipeline: {label} failed: {result}")
        else:
            results[label] = result
            logger.info(f"pipeline: {label} is finished")
    if errors:
        raise _failure({label: errors[label] for label in parts if label in errors}, parts)
    return [results[label] for label in parts]


def folds_at_once(config: PipelineConfig, steps: Iterable[Any], cpus: int) -> int:
    """Return how many folds run side by side on this many logical CPUs, at least one.

    Processes of one fold that wait for each other must all find CPUs, whatever the other folds hold.
    """
    wanted = config.run.folds_at_once
    if wanted is None:
        wanted = max(1, cpus // MIN_CPUS)
    most = max([_held(one) for one in steps], default=1.0)
    fit = max(1, int(cpus // (most + 1)))
    if wanted > fit and config.run.folds_at_once is not None:
        logger.warning(
            f"run.folds_at_once: {wanted} folds need {wanted * (most + 1):g} logical CPUs, and the cluster has {cpus}: "
            f"{fit} run at a time"
        )
    return min(wanted, fit)


def _held(step: Config) -> float:
    """Return the CPUs that processes of a step hold while they wait for others."""
    if isinstance(step, TrainConfig):
        return float(step.run.workers * (step.run.cpus_per_worker + step.run.readers))
    if isinstance(step, ImputeConfig):
        return float(step.run.shard_actors * step.run.replicas * step.run.cpus_per_shard_actor)
    return 1.0


def _failure(failed: Mapping[str, RaystpError], all_folds: Mapping[str, FoldWork]) -> RaystpError:
    """Return one error for the folds that failed, of the class of the first."""
    label, first = next(iter(failed.items()))
    names = f" ({', '.join(failed)})" if len(failed) > 1 else ""
    others = "The others are finished; the" if len(failed) < len(all_folds) else "The"
    text = (
        f"{len(failed)} of {len(all_folds)} folds failed{names}; {label}, which tests "
        f"{some(list(all_folds[label].fold.test))}: {str(first).rstrip('.')}. {others} same command does the rest"
    )
    return type(first)(text)


def from_folder(config: Any, folder: str) -> Any:
    """Return a step's config with its relative paths below a folder: other processes have other working directories."""
    relative: dict[str, set[str]] = {}
    for key, path in relative_paths(config):
        relative.setdefault(key, set()).add(path)
    if not relative or Path(folder) == Path.cwd():
        return config
    values = config.model_dump(mode="json", exclude_unset=True)
    for key, paths in relative.items():
        value: Any = values
        for part in key.split("."):
            value = value[part]
        set_field(values, key, _below(value, paths, folder), f"pipeline: {key}")
    return type(config).of(values)


def _below(value: Any, relative: set[str], folder: str) -> Any:
    """Return a path, or each of a list or of a group, below a folder if it is one of the relative ones."""
    if isinstance(value, dict):
        return {key: _below(one, relative, folder) for key, one in value.items()}
    if isinstance(value, list):
        return [_below(one, relative, folder) for one in value]
    if value not in relative:
        return value
    start = "sqlite:///" if value.startswith("sqlite:///") else ""
    return f"{start}{Path(folder) / value.removeprefix(start)}"
