"""index: a contrastive model + measured spots -> a reference index: shards of vectors and expression."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from raystp.artifacts import Artifact, ArtifactWriter, create_or_open, resolve
from raystp.cluster.progress import Progress
from raystp.cluster.session import session
from raystp.cluster.streams.tasks import map_tasks
from raystp.errors import ModelError, some
from raystp.expression.embeddings.join import input_roles
from raystp.index.description import IndexDescription, ShardRecord, with_unmeasured
from raystp.index.open import open_reference_index
from raystp.index.queries import queries_per_section, recall_queries, write_queries
from raystp.index.reference import shard_ranges, shard_ranges_by_bytes
from raystp.index.search.kinds import IndexParams
from raystp.index.write import IndexPlan, describe, plan_index, sample_rows
from raystp.models.predictor import BagEmbedder, ContrastivePredictor
from raystp.models.store import load_model
from raystp.steps.embedding_source import open_embeddings_for
from raystp.steps.index.cases import CaseTask, case_tasks, embed_case
from raystp.steps.index.change import STORED_VECTORS, add_sections, remove_patients
from raystp.steps.index.config import IndexConfig, Vectors
from raystp.steps.index.work import (
    EmbeddedSection,
    PanelNames,
    SectionTask,
    ShardTask,
    embed_section,
    pieces_of,
    section_rows,
    unmeasured_warnings,
    write_one_shard,
)
from raystp.steps.train.reference import open_model

logger = logging.getLogger("raystp")

STEP = "index"
CONFIG = IndexConfig


def run(config: IndexConfig) -> Artifact:
    """Embed the reference spots and write their index, or write a changed index."""
    store = config.run.store
    if config.base is not None:
        base = resolve(store, config.base, STEP)
        return add_sections(config, base) if config.reference is not None else remove_patients(config, base)
    model = resolve(store, str(config.model), "train")
    embeddings = open_embeddings_for(load_model(model.path)[2], store, config.embeddings or (), model.path)
    spots = resolve(store, str(config.spots), "spots") if config.cases is None else None
    labels = {"spots": spots} if spots is not None else {}
    tables = config.cases.digests(store) if config.cases is not None else {}
    writer = create_or_open(config, STEP, {"model": model, **labels, **tables, **input_roles("embeddings", embeddings)})
    if isinstance(writer, Artifact):
        return writer
    meta = _load_meta(model, on_cases=config.cases is not None)
    config, vectors = _with_retrieval(config, meta)
    panel = PanelNames.of(meta)
    names = config.reference or [*meta["train"], *meta["validation"]]
    tasks: Sequence[SectionTask | CaseTask]
    if spots is None:
        tasks = case_tasks(config, meta, (model.path, writer.path), embeddings)
    else:
        tasks = [SectionTask(model.path, spots, embeddings, name, vectors, writer.path, panel) for name in names]
    with session(config.run.address):
        sections, failures = _embed(tasks)
        count = queries_per_section(len(sections))
        queries = pa.concat_tables([section.queries(count) for section in sections])
        description = _build(config, writer, sections, list(meta["genes"]), queries=queries)
    measured = write_queries(writer.path, open_reference_index(writer.path, description), queries)
    (writer.path / "parts").remove()
    rows, shards = sum(len(section.spots) for section in sections), len(description["shards"])
    _log(config, description, sections)
    notes: dict[str, object] = {
        "bank": description,
        "model": model.manifest.folder,
        "vectors": STORED_VECTORS[vectors],
        "patients": description["patients"],
        "slides": sorted(_slides(tasks, sections)),
        **measured,
    }
    if warnings := unmeasured_warnings(panel.genes, {one.section: one.unmeasured for one in sections}):
        notes["warnings"] = warnings
    return writer.finish({"rows": rows, "shards": shards}, failures, notes)


def _load_meta(model: Artifact, *, on_cases: bool) -> Mapping[str, Any]:
    kind, arrays, meta = load_model(model.path)
    opened = open_model(kind, arrays, meta)
    if not isinstance(opened, ContrastivePredictor):
        msg = f"{model.path} is a {kind} model, which needs no index: run `raystp impute` without one"
        raise ModelError(msg)
    if isinstance(opened, BagEmbedder) != on_cases:
        learned, key = ("measured spots", "spots") if on_cases else ("labels of whole cases", "cases")
        msg = f"{model.path} was trained on {learned}: set `{key}`, and no other labels"
        raise ModelError(msg)
    return meta


def _slides(tasks: Sequence[SectionTask | CaseTask], sections: Sequence[EmbeddedSection]) -> set[str]:
    """Return the slides that the index was built from; a case may have several."""
    slides_of = {task.section: task.case.slides for task in tasks if isinstance(task, CaseTask)}
    return {slide for section in sections for slide in slides_of.get(section.section, (section.slide,))}


def _embed_one(task: SectionTask | CaseTask) -> EmbeddedSection | str:
    return embed_case(task) if isinstance(task, CaseTask) else embed_section(task)


def _with_retrieval(config: IndexConfig, meta: Mapping[str, Any]) -> tuple[IndexConfig, Vectors]:
    """Return the config with its metric, and its vectors: the model's own retrieval where the config has none."""
    own = meta.get("retrieval", {})
    vectors: Vectors = config.vectors or own.get("vectors", "expression")
    metric = config.metric or own.get("metric", "cosine")
    for name, chosen in (("vectors", vectors), ("metric", metric)):
        if name in own and chosen != own[name]:
            logger.warning(f"index: {name}={chosen}; the model's epoch was chosen with retrieval.{name}={own[name]}")
    return config.model_copy(update={"metric": metric, "vectors": vectors}), vectors


def _log(config: IndexConfig, description: IndexDescription, sections: Sequence[EmbeddedSection]) -> None:
    rows = sum(len(section.spots) for section in sections)
    names, shards = some([section.section for section in sections]), len(description["shards"])
    what = f"{rows} spots of {names}" if config.cases is None else f"{rows} cases"
    logger.info(f"index: {what} in {shards} shards, {config.metric}; {description['why']}")
    if description.get("sentence") and description["kind"] != "exact":
        logger.info(f"  {description['sentence']}")


def _embed(tasks: Sequence[SectionTask | CaseTask]) -> tuple[list[EmbeddedSection], list[dict[str, object]]]:
    """Embed every section; one that fails becomes a failure and is not in the index."""
    embedded: dict[int, EmbeddedSection] = {}
    failures: list[dict[str, object]] = []
    with Progress(STEP, len(tasks), "section") as progress:
        for position, result in map_tasks(_embed_one, list(tasks), on_crash=_crashed):
            if isinstance(result, str):
                failures.append({"slide": tasks[position].section, "stage": STEP, "reason": result})
            else:
                embedded[position] = result
            progress.add(1, failed=isinstance(result, str))
    if not embedded:
        msg = f"all {len(tasks)} sections failed; the first: {failures[0]['reason']}"
        raise ModelError(msg)
    return [embedded[position] for position in sorted(embedded)], failures


def _crashed(task: SectionTask | CaseTask) -> str:
    return (
        f"section {task.section!r} crashed every worker that embedded it, probably out of memory; skipped. Rerun with "
        "--set run.retry_failed=true"
    )


def _build(
    config: IndexConfig,
    writer: ArtifactWriter,
    sections: Sequence[EmbeddedSection],
    genes: list[str],
    *,
    queries: pa.Table,
) -> IndexDescription:
    """Plan the index, write each shard in a task of its own, and describe the whole."""
    rows, joint = sum(len(section.spots) for section in sections), sections[0].joint
    params = IndexParams(
        kind=config.kind, recall=config.recall, k=config.recall_k, form=config.expression, prefer=config.prefer
    )
    sample = _sample(sections, sample_rows(rows, params))
    plan = plan_index(writer.path, *sample, rows=rows, metric=config.metric or "cosine", params=params)
    shards = _write_shards(config, writer, plan, sections=sections, row_bytes=4 * (joint + len(genes)))
    table = pa.concat_tables([section_rows(section) for section in sections])
    described = describe(writer.path, plan, shards, table, genes=genes, queries=recall_queries(queries, params.seed))
    return with_unmeasured(described, {section.section: section.unmeasured for section in sections})


def _write_shards(
    config: IndexConfig,
    writer: ArtifactWriter,
    plan: IndexPlan,
    *,
    sections: Sequence[EmbeddedSection],
    row_bytes: int,
) -> list[ShardRecord]:
    rows = sum(len(section.spots) for section in sections)
    if config.shards:
        ranges = shard_ranges(rows, config.shards)
    else:
        ranges = shard_ranges_by_bytes(rows, row_bytes, config.shard_bytes)
    tasks = [ShardTask(number, pieces_of(sections, *bounds), plan, writer.path) for number, bounds in enumerate(ranges)]
    records: dict[int, ShardRecord] = {}
    with Progress(STEP, len(tasks), "shard") as progress:
        for position, result in map_tasks(write_one_shard, tasks, cpus=config.run.cpus_per_shard):
            if isinstance(result, str):
                raise ModelError(result)
            records[position] = result
            progress.add(1)
    return [records[number] for number in range(len(tasks))]


def _sample(sections: Sequence[EmbeddedSection], rows: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return the vectors of rising rows over all sections, and their patients."""
    vectors, patients, offset = [], [], 0
    for section in sections:
        own = rows[(rows >= offset) & (rows < offset + len(section.spots))] - offset
        vectors.append(section.vectors()[own])
        patients += [section.patient] * len(own)
        offset += len(section.spots)
    return np.concatenate(vectors), patients
