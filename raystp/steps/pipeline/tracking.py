"""A cross-validation in MLflow: the table of its folds, with the runs of the folds below it."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from raystp.artifacts import Artifact, ArtifactWriter
from raystp.cluster.tracking.outbox import tracked
from raystp.cluster.tracking.tags import group_tags
from raystp.evaluate.metrics.folds import CrossValidatedScore
from raystp.steps.pipeline.config import PipelineConfig

logger = logging.getLogger("raystp")

TRACKED_STEPS = ("train", "evaluate")
"""Steps with runs of their own."""
DATA_STEPS = ("spots", "embed")


def track_folds(
    config: PipelineConfig,
    writer: ArtifactWriter,
    scores: Sequence[CrossValidatedScore],
    *,
    found: Mapping[str, Artifact],
    files: Sequence[str],
) -> None:
    """Log the table of the folds, and show the trainings and evaluations of the folds below this run.

    `found` is role -> artifact of the pipeline; the first of the `files` with text describes the run.
    """
    made = list(found.values())
    data = {role: one.manifest.folder for role, one in found.items() if one.manifest.step in DATA_STEPS}
    cohort = (found.get("spots") or next(one for one in made if one.manifest.step == "embed")).manifest.name
    held_out = next(str(one.manifest.notes["protocol"]) for one in made if one.manifest.step == "impute")
    tracker = config.run.tracker(cohort)
    run_ref = tracker.run_ref(f"{writer.name}-{writer.fingerprint}", writer.folder)
    with tracked(tracker, run_ref, writer.config) as run:
        run.set_tags(group_tags(writer.name, config.protocol or held_out))
        for name in [one for one in files if one.endswith(".txt")][:1]:
            run.describe(f"```\n{(writer.path / name).read_bytes().decode()}```")
        run.log_inputs(data, "cross-validation")
        for step, values in fold_metrics(scores).items():
            run.log_metrics(values, step=step)
        for name in files:
            run.log_file(f"{writer.folder}/{name}")
        run.adopt([one.manifest.folder for one in made if one.manifest.step in TRACKED_STEPS])
    if run.undelivered:
        logger.warning(f"  {run.undelivered}")


def fold_metrics(scores: Sequence[CrossValidatedScore]) -> dict[int, dict[str, float]]:
    """Return step -> metrics: the place of a fold, from 1 on, -> its scores; 0 -> their mean, sd and interval.

    A score that a fold does not have is left out.
    """
    found: dict[int, dict[str, float]] = {0: {}}
    for one in scores:
        name = f"{one.metric} {one.genes}/{one.model}"
        found[0] |= {f"mean {name}": one.mean, f"sd {name}": one.sd}
        if one.interval is not None:
            found[0] |= {f"low {name}": one.interval[0], f"high {name}": one.interval[1]}
        for number, value in enumerate(one.values, 1):
            found.setdefault(number, {})[name] = value
    return {
        step: {name: value for name, value in values.items() if np.isfinite(value)} for step, values in found.items()
    }
