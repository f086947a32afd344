"""impute: embeddings + a model [+ index] -> predicted expression: AnnData per slide, parquet for the cohort."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from raystp.artifacts import Artifact, ArtifactWriter, create_or_open, resolve
from raystp.cluster.progress import Progress
from raystp.cluster.session import cluster_cpus, session
from raystp.cluster.streams.slides import SlideResources, map_slides
from raystp.errors import ConfigError, ModelError, some
from raystp.evaluate.protocols import EvaluationProtocol, protocol_of
from raystp.models.methods import METHODS
from raystp.models.store import load_model
from raystp.steps.impute.config import ImputeConfig
from raystp.steps.impute.imputer import open_remote_index
from raystp.steps.impute.leak import KnownPatients, select_slides
from raystp.steps.impute.slide import PredictOptions
from raystp.steps.impute.work import ImputeWork

STEP = "impute"
CONFIG = ImputeConfig


def run(config: ImputeConfig) -> Artifact:
    """Predict every slide that the protocol allows; a slide that fails is a row in the failures table."""
    store = config.run.store
    embed, model = resolve(store, config.embeddings, "embed"), resolve(store, config.model, "train")
    index = resolve(store, config.index, "index") if config.index else None
    spots = resolve(store, config.spots, "spots") if config.spots else None
    found = resolve(store, config.neighbours, STEP) if config.neighbours else None
    inputs: dict[str, Artifact | str] = {"embeddings": embed, "model": model}
    more = (("index", index), ("spots", spots), ("neighbours", found))
    inputs |= {role: one for role, one in more if one is not None}
    draft = create_or_open(config, STEP, inputs)
    if isinstance(draft, Artifact):
        return draft
    kind, _, meta = load_model(model.path)
    _check_index(kind, model, index)
    _check_genes(config, meta["genes"])
    _check_found(found, embed, index)
    protocol = protocol_of(config.protocol or meta["protocol"])
    who = select_slides(config, embed, KnownPatients.of(embed, meta, index), protocol)
    work = ImputeWork(
        model=model,
        embed=embed,
        index=index,
        spots=spots,
        found=found,
        asked=_asked(config, protocol),
        left_out=who.left_out,
        target=draft.path,
    )
    notes = {"kind": kind, "shared_patients": who.shared, "output": config.output, "left_out": who.left_out}
    return _predict(draft, config, work, slides=who.slides, notes=notes | _about(embed, meta, protocol, config.genes))


def _asked(config: ImputeConfig, protocol: EvaluationProtocol) -> PredictOptions:
    return PredictOptions(
        k=config.k,
        weights=config.weights,
        exactly=config.search == "exact",
        genes=config.genes,
        spread=config.spread,
        output=config.output,
        without=config.without,
        protocol=protocol.name,
        chunk=config.run.chunk_tiles,
    )


def _predict(
    draft: ArtifactWriter, config: ImputeConfig, work: ImputeWork, *, slides: list[str], notes: dict[str, Any]
) -> Artifact:
    """Predict the slides that are not done; finish the artifact over those that are."""
    if config.run.retry_failed:
        work.attempts.forget()
    rows = {slide: count for slide in slides if (count := work.rows(slide)) is not None}
    left = [slide for slide in slides if slide not in rows]
    failures: list[dict[str, object]] = []
    with session(config.run.address), _apart(work, config) as ready, Progress(STEP, len(slides), "slide") as progress:
        progress.add(len(rows))
        for receipt in map_slides(ready, left, _width(config)):
            if receipt.error:
                failures.append({"slide": receipt.slide, "stage": STEP, "reason": receipt.error})
            else:
                rows[receipt.slide] = receipt.rows
            progress.note = f"{sum(rows.values())} tiles"
            progress.add(1, failed=bool(receipt.error))
    work.attempts.sweep(rows)
    done = [slide for slide in slides if slide in rows]
    return draft.finish({"slides": len(done), "tiles": sum(rows.values())}, failures, notes | {"slides": done})


@contextlib.contextmanager
def _apart(work: ImputeWork, config: ImputeConfig) -> Iterator[ImputeWork]:
    """Give the work with its bank's shards held by actors, where that is asked for, until the work is done."""
    run = config.run
    if work.index is None or not run.shard_actors:
        yield work
        return
    apart = open_remote_index(work.index, run.shard_actors, replicas=run.replicas, cpus=run.cpus_per_shard_actor)
    try:
        yield replace(work, apart=apart)
    finally:
        apart.pool.close()


def _width(config: ImputeConfig) -> SlideResources:
    return SlideResources(config.run.processes or max(1, cluster_cpus() // 2), config.run.cpus_per_process)


def _about(
    embed: Artifact, meta: dict[str, Any], protocol: EvaluationProtocol, genes: list[str] | None
) -> dict[str, Any]:
    return {
        "protocol": protocol.name,
        "panel": meta["panel"]["name"],
        "genes": len(genes or meta["genes"]),
        "encoder": embed.manifest.notes["encoder"]["name"],
    }


def _check_index(kind: str, model: Artifact, index: Artifact | None) -> None:
    """Raise where a contrastive model has no bank, or one of another model; the bank's own files are checked later."""
    if METHODS[kind].needs_index and index is None:
        msg = f"{model.path} is a {kind} model, which needs a reference index: run `raystp index`, then set `index`"
        raise ConfigError(msg)
    if index is not None and index.manifest.notes["model"] != model.manifest.folder:
        msg = (
            f"the index {index.path} was made with model {index.manifest.notes['model']}, not with "
            f"{model.manifest.folder}: make one with this model"
        )
        raise ModelError(msg)


def _check_genes(config: ImputeConfig, known: list[str]) -> None:
    unknown = sorted(set(config.genes or ()) - set(known))
    if unknown or (config.genes is not None and len(set(config.genes)) != len(config.genes)):
        msg = f"genes: {some(unknown) if unknown else 'one is named twice'}; the model has {len(known)} genes, such as "
        raise ConfigError(msg + ", ".join(known[:5]))


def _check_found(found: Artifact | None, embed: Artifact, index: Artifact | None) -> None:
    """Raise where neighbours were not found among these embeddings in this bank."""
    if found is None:
        return
    if found.manifest.notes.get("output") != "neighbours":
        msg = f"neighbours: {found.path} holds no neighbours: run `raystp impute --set output=neighbours` first"
        raise ConfigError(msg)
    for role, one in (("embeddings", embed), ("index", index)):
        if one is None or found.manifest.inputs.get(role) != one.manifest.folder:
            msg = (
                f"neighbours: {found.path} was found with {role} {found.manifest.inputs.get(role)}, not with "
                f"{one.manifest.folder if one else 'none'}: name the same"
            )
            raise ConfigError(msg)
