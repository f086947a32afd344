"""impute: embeddings + a model [+ an index] -> predicted expression: AnnData per slide, parquet for the cohort."""

import contextlib
import functools
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from raystp.artifacts import Artifact, ArtifactWriter, create_or_open, open_artifact, resolve
from raystp.cluster.progress import Progress
from raystp.cluster.session import cluster_cpus, session
from raystp.cluster.streams.shard_pool import open_pool
from raystp.cluster.streams.slides import SlideResources, map_slides
from raystp.errors import ConfigError, some
from raystp.evaluate.protocols import EvaluationProtocol, protocol_of
from raystp.expression.embeddings.join import input_roles
from raystp.impute.hashed_names import stored_names, stored_values
from raystp.impute.selection import KnownPatients, LeakRules, SlideSelection, select_slides
from raystp.index.open import open_reference_index
from raystp.index.remote import RemoteIndex, open_shard_group
from raystp.models.methods import METHODS
from raystp.models.store import load_model
from raystp.steps.embedding_source import open_embeddings_for
from raystp.steps.impute.checks import check_fields, check_index, check_neighbours
from raystp.steps.impute.config import ImputeConfig
from raystp.steps.impute.slide_table import SLIDES_CSV, PredictedTiles, imputed_slides, slides_csv
from raystp.steps.impute.work import PredictOptions, SlideTask
from raystp.steps.train.retrieval import Retrieval

logger = logging.getLogger("raystp")

STEP = "impute"
CONFIG = ImputeConfig


def run(config: ImputeConfig) -> Artifact:
    """Predict every slide that the protocol allows; a slide that fails is a row in the failures table."""
    store = config.run.store
    model = resolve(store, config.model, "train")
    kind, _, meta = load_model(model.path)
    embeddings = open_embeddings_for(meta, store, config.embeddings, model.path)
    index = resolve(store, config.index, "index") if config.index else None
    spots = resolve(store, config.spots, "spots") if config.spots else None
    neighbours = resolve(store, config.neighbours, STEP) if config.neighbours else None
    inputs: dict[str, Artifact | str] = {**input_roles("embeddings", embeddings), "model": model}
    optional = (("index", index), ("spots", spots), ("neighbours", neighbours))
    inputs |= {role: artifact for role, artifact in optional if artifact is not None}
    writer = create_or_open(config, STEP, inputs)
    if isinstance(writer, Artifact):
        return writer
    if index is None and METHODS[kind].needs_index:
        msg = f"{model.path} is a {kind} model, which needs a reference index: run `raystp index`, then set `index`"
        raise ConfigError(msg)
    check_index(model, index)
    retrieval, calibrate = check_fields(config, meta)
    if "calibration" in meta and not calibrate and config.calibrate is None:
        logger.warning("impute: not calibrated: k, weights or temperature differ from those of the calibration")
    check_neighbours(neighbours, embeddings, index)
    protocol = protocol_of(config.protocol or meta["protocol"])
    lost = _named_failures(config, embeddings)
    selection = _select(config, embeddings, meta, index, protocol=protocol, lost=lost)
    task = SlideTask(
        model=model,
        embeddings=embeddings,
        index=index,
        spots=spots,
        neighbours=neighbours,
        options=_options(config, protocol, retrieval, calibrate=calibrate, salt=meta.get("names_salt")),
        left_out=stored_names(selection.left_out, meta.get("names_salt")),
        target=writer.path,
    )
    notes = {
        "kind": kind,
        "protocol": protocol.name,
        "panel": meta["panel"]["name"],
        "genes": len(config.genes or meta["genes"]),
        "encoder": embeddings.manifest.notes["encoder"]["name"],
        "output": config.output,
        "shared_patients": selection.shared,
        "left_out": selection.left_out,
    }
    if index is not None:
        how = {"k": retrieval.k, "weights": retrieval.weights, "temperature": retrieval.temperature}
        notes["retrieval"] = {**how, "calibrated": calibrate}
    return _predict(writer, config, task, slides=selection.slides, notes=notes, lost=lost)


def open_remote_index(index: Artifact, actors: int, *, replicas: int = 1, cpus: float = 0.0) -> RemoteIndex:
    """Start actors among which an index's shards are divided evenly, at most one per shard, each `replicas` times."""
    description = index.manifest.notes["bank"]
    groups = min(actors, len(description["shards"]))
    open_group = functools.partial(open_shard_group, index.path, description, groups)
    pool = open_pool(open_group, groups, replicas=replicas, cpus=cpus)
    return RemoteIndex(open_reference_index(index.path, description, only=()), pool)


def _select(
    config: ImputeConfig,
    embeddings: Artifact,
    meta: Mapping[str, Any],
    index: Artifact | None,
    *,
    protocol: EvaluationProtocol,
    lost: Mapping[str, str],
) -> SlideSelection:
    """Return the slides that may be predicted, from what model, index and embeddings know of patients.

    `lost` are named slides that failed in an earlier step.
    """
    named = None if config.slides is None else [slide for slide in config.slides if slide not in lost]
    if lost and not named:
        return SlideSelection([], [], {})
    indexed = index.manifest.notes if index is not None else {"patients": [], "slides": []}
    known = KnownPatients(
        model_patients=frozenset(meta["patients"].values()),
        model_slides=frozenset(meta["slides"]),
        index_patients=frozenset(indexed["patients"]),
        index_slides=frozenset(indexed["slides"]),
    )
    rules = LeakRules(protocol.name, protocol.same_patient, leave_out=config.own_rows == "leave_out")
    patients = embeddings.manifest.notes["patients"]
    if salt := meta.get("names_salt"):  # of a published model
        known = known.among(patients, salt)
    found = select_slides(patients, known, rules, named=named, source=str(embeddings.path))
    if unknown := [slide for slide in found.slides if not patients[slide]]:
        logger.warning(f"  slides {some(unknown)} have no patient: whether the model has seen the patient is unknown")
    return found


def _named_failures(config: ImputeConfig, embeddings: Artifact) -> dict[str, str]:
    """Return the named slides without embeddings that failed in an earlier step, and why; log the other failed ones."""
    notes = embeddings.manifest.notes
    rows = embeddings.failures().to_pylist()
    if embeddings.noted(notes["tiles"]).exists():
        rows += open_artifact(embeddings.noted(notes["tiles"]), "tile").failures().to_pylist()
    reasons = {row["slide"]: f"it failed at {row['stage']}: {row['reason']}" for row in reversed(rows)}
    failed = {slide: reason for slide, reason in reasons.items() if slide not in notes["patients"]}
    if config.slides is not None:
        return {slide: failed[slide] for slide in config.slides if slide in failed}
    if failed:
        logger.warning(f"impute: {some(sorted(failed))} not predicted: they failed in an earlier step")
    return {}


def _options(
    config: ImputeConfig, protocol: EvaluationProtocol, retrieval: Retrieval, *, calibrate: bool, salt: str | None
) -> PredictOptions:
    return PredictOptions(
        k=retrieval.k,
        weights=retrieval.weights,
        exact=config.search == "exact",
        genes=config.genes,
        spread=config.spread,
        output=config.output,
        without=stored_values(config.without, salt),
        protocol=protocol.name,
        chunk_tiles=config.run.chunk_tiles,
        temperature=retrieval.temperature,
        calibrate=calibrate,
        x=config.x,
    )


def _predict(
    writer: ArtifactWriter,
    config: ImputeConfig,
    task: SlideTask,
    *,
    slides: list[str],
    notes: Mapping[str, object],
    lost: Mapping[str, str],
) -> Artifact:
    """Predict the slides that are not done; finish the artifact with those that are."""
    if config.run.retry_failed:
        task.attempts.clear()
    rows = {slide: count for slide in slides if (count := task.rows(slide)) is not None}
    left = [slide for slide in slides if slide not in rows]
    failures: list[dict[str, object]] = [
        {"slide": slide, "stage": STEP, "reason": reason} for slide, reason in lost.items()
    ]
    with (
        session(config.run.address),
        _with_remote_index(task, config) as ready,
        Progress(STEP, len(slides), "slide") as progress,
    ):
        progress.add(len(rows))
        for receipt in map_slides(ready, left, _resources(config)):
            if receipt.error:
                failures.append({"slide": receipt.slide, "stage": STEP, "reason": receipt.error})
            else:
                rows[receipt.slide] = receipt.rows
            progress.note = f"{sum(rows.values())} tiles"
            progress.add(1, failed=bool(receipt.error))
    task.attempts.remove_finished(rows)
    done = [slide for slide in slides if slide in rows]
    notes = {**notes, "slides": done}
    if warnings := _unpredicted(task, {slide: rows[slide] for slide in done}, genes=int(str(notes["genes"]))):
        notes["warnings"] = warnings
    predicted = {slide: PredictedTiles(rows[slide], task.far(slide)) for slide in done}
    table = slides_csv(imputed_slides(task.embeddings, task.model, predicted, failures))
    (writer.path / SLIDES_CSV).write_bytes(table)
    return writer.finish({"slides": len(done), "tiles": sum(rows.values())}, failures, notes)


def _unpredicted(task: SlideTask, rows: Mapping[str, int], *, genes: int) -> dict[str, list[str]]:
    """Return slide -> a warning about values without a prediction, and log each."""
    warnings = {}
    for slide, tiles in rows.items():
        if count := task.unpredicted(slide):
            warning = (
                f"{count} of {tiles * genes} values have no prediction (NaN): no neighbour of the tile has measured "
                "the gene; raise k, or add sections that measured it to the index"
            )
            warnings[slide] = [warning]
            logger.warning(f"  {slide}: {warning}", extra={"slide": slide})
    return warnings


@contextlib.contextmanager
def _with_remote_index(task: SlideTask, config: ImputeConfig) -> Iterator[SlideTask]:
    """Yield the task, with actors for the index's shards if configured; stop them at the end."""
    run = config.run
    if task.index is None or not run.shard_actors:
        yield task
        return
    remote = open_remote_index(task.index, run.shard_actors, replicas=run.replicas, cpus=run.cpus_per_shard_actor)
    try:
        yield replace(task, remote=remote)
    finally:
        remote.close()


def _resources(config: ImputeConfig) -> SlideResources:
    return SlideResources(config.run.processes or max(1, cluster_cpus() // 2), config.run.cpus_per_process)
