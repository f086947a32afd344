"""export: an artifact -> files of another tool in a folder, and a record of it in the store.

A slide is one task, and each of its files is replaced as a whole, so an export can be repeated. It always writes: the
files are not in the store, and may have been changed since. Equal artifacts give equal bytes, where the format allows
it.
"""

import logging
from collections.abc import Sequence
from typing import Any

from raystp.artifacts import MANIFEST, Artifact, create_or_open, resolve
from raystp.cluster.progress import Progress
from raystp.cluster.session import session
from raystp.cluster.streams.tasks import map_tasks
from raystp.errors import ConfigError
from raystp.interop.outputs.registry import PREDICTIONS
from raystp.interop.registry import feature_format
from raystp.steps.export.config import PATCHES, ExportConfig
from raystp.steps.export.features import Exported, FeatureTask, export_features, feature_tasks
from raystp.steps.export.patches import PatchTask, export_patches, patch_tasks
from raystp.steps.export.predictions import PredictionTask, export_prediction, open_predictions, prediction_tasks
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

STEP = "export"
CONFIG = ExportConfig

ExportTask = FeatureTask | PatchTask | PredictionTask


def run(config: ExportConfig) -> Artifact:
    """Write every slide; a slide that fails is a row of the failures table. Return the record of the export."""
    inputs, tasks = _work(config)
    out = StoragePath.of(config.out)
    if out.exists() and not out.is_folder():
        msg = f"out: {out} is a file; give a folder, or a URI"
        raise ConfigError(msg)
    draft = create_or_open(config, STEP, inputs)
    if isinstance(draft, Artifact):
        (draft.path / MANIFEST).remove()  # nothing says that its files are still there: another export may replace them
        draft = create_or_open(config, STEP, inputs)
        assert not isinstance(draft, Artifact)
    out.check_writable("output", "out")
    slides, failures = _export(config, tasks)
    for one in slides:
        for note in one.notes:
            logger.info(f"  {one.slide}: {note}", extra={"slide": one.slide})
    _write_tables(config, inputs["artifact"], slides, out)
    notes: dict[str, Any] = {
        "format": config.format,
        "out": out.with_query(),
        "slides": [one.slide for one in slides],
        "notes": {one.slide: list(one.notes) for one in slides if one.notes},
        "summary": f"{config.format}: {out}",
    }
    return draft.finish({"slides": len(slides), "tiles": sum(one.tiles for one in slides)}, failures, notes)


def _export(config: ExportConfig, tasks: Sequence[ExportTask]) -> tuple[list[Exported], list[dict[str, object]]]:
    """Run the tasks; return the slides in their order, and the rows of the failures table."""
    written: dict[int, Exported] = {}
    failures: list[dict[str, object]] = []
    with session(config.run.address), Progress(STEP, len(tasks), "slide") as progress:
        deadline = config.run.deadline_s
        for position, result in map_tasks(export_slide, tasks, deadline_s=deadline, on_crash=_crashed):
            progress.add(1, failed=isinstance(result, str))
            if isinstance(result, str):
                failures.append({"slide": tasks[position].slide, "stage": STEP, "reason": result})
            else:
                written[position] = result
    return [written[position] for position in sorted(written)], failures


def _write_tables(config: ExportConfig, source: Artifact, slides: Sequence[Exported], out: StoragePath) -> None:
    """Write what a format of features has beside the files of its slides."""
    if not slides or config.format in {*PREDICTIONS, PATCHES}:
        return
    patients = {one.slide: str(source.manifest.notes["patients"].get(one.slide, "")) for one in slides}
    for line in feature_format(config.format).write_tables(patients, slides[0].encoder, out):
        logger.info(f"  {line}")


def export_slide(task: ExportTask) -> Exported | str:
    """Write one slide; a failure is returned as its reason."""
    if isinstance(task, PatchTask):
        return export_patches(task)
    return export_features(task) if isinstance(task, FeatureTask) else export_prediction(task)


def _work(config: ExportConfig) -> tuple[dict[str, Artifact], Sequence[ExportTask]]:
    """Return the inputs, of which `artifact` is exported, and a task for each slide."""
    store = config.run.store
    if config.format == PATCHES:
        tiles = resolve(store, config.artifact, "tile")
        return {"artifact": tiles}, patch_tasks(tiles, config)
    if config.format not in PREDICTIONS:
        embeddings = resolve(store, config.artifact, "embed")
        return {"artifact": embeddings}, feature_tasks(embeddings, config)
    predictions = open_predictions(store, config.artifact)
    inputs = {"artifact": predictions}
    evaluation = None if config.evaluation is None else resolve(store, config.evaluation, "evaluate")
    inputs |= {} if evaluation is None else {"evaluation": evaluation}
    return inputs, prediction_tasks(predictions, config, evaluation)


def _crashed(task: ExportTask) -> str:
    return (
        f"slide {task.slide!r} crashed every worker that wrote it, or exceeded the {task.config.run.deadline_s:g} s "
        "deadline; skipped. Rerun with --set run.retry_failed=true"
    )
