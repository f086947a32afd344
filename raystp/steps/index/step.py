"""index: a contrastive model + reference spots -> a bank: shards of vectors, and expression rows in the same order."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from raystp.artifacts import Artifact, ArtifactWriter, create_or_open, resolve
from raystp.cluster.progress import Progress
from raystp.cluster.session import session
from raystp.cluster.streams.tasks import map_tasks
from raystp.errors import ModelError, some
from raystp.index.cut import cut, cut_by_bytes
from raystp.index.opened import open_reference_index
from raystp.index.search.kinds import IndexParams, IndexPlan
from raystp.index.write import describe, plan_index, sample_rows
from raystp.models.methods import open_predictor
from raystp.models.predictor import ContrastivePredictor
from raystp.models.store import load_model
from raystp.steps.index.change import added, removed
from raystp.steps.index.config import IndexConfig
from raystp.steps.index.queries import asked, measured, share_of_each
from raystp.steps.index.tasks import (
    EmbeddedSection,
    SectionTask,
    ShardTask,
    pieces,
    place_section,
    rows_of,
    write_one_shard,
)

logger = logging.getLogger("raystp")

STEP = "index"
CONFIG = IndexConfig


def run(config: IndexConfig) -> Artifact:
    """Embed the reference spots and leave the bank; or change one."""
    store = config.run.store
    if config.base is not None:
        base = resolve(store, config.base, STEP)
        return added(config, base) if config.reference is not None else removed(config, base)
    model, spots = resolve(store, str(config.model), "train"), resolve(store, str(config.spots), "spots")
    embed = resolve(store, str(config.embeddings), "embed")
    draft = create_or_open(config, STEP, {"model": model, "spots": spots, "embeddings": embed})
    if isinstance(draft, Artifact):
        return draft
    meta = _checked(model)
    names = config.reference or [*meta["train"], *meta["validation"]]
    work = [SectionTask(model.path, spots, embed, name, config.bank, draft.path) for name in names]
    with session(config.run.address):
        parts, failures = _place(work)
        most = share_of_each(len(parts))
        queries = pa.concat_tables([part.queries(most) for part in parts])
        described = _build(config, draft, parts, list(meta["genes"]), queries=queries)
    told = measured(draft.path, open_reference_index(draft.path, described), queries)
    (draft.path / "parts").remove()
    rows = sum(len(part.spots) for part in parts)
    shards = len(described["shards"])
    sections = some([part.section for part in parts])
    logger.info(f"index: {rows} spots of {sections} in {shards} shards, {config.metric}; {described['why']}")
    if described.get("sentence") and described["kind"] != "exact":
        logger.info(f"  {described['sentence']}")
    notes = {
        "bank": described,
        "model": model.manifest.folder,
        "vectors": config.bank,
        "patients": described["patients"],
        "slides": sorted({part.slide for part in parts}),
        **told,
    }
    return draft.finish({"rows": rows, "shards": shards}, failures, notes)


def _checked(model: Artifact) -> dict[str, Any]:
    kind, arrays, meta = load_model(model.path)
    if not isinstance(open_predictor(kind, arrays, meta), ContrastivePredictor):
        msg = f"{model.path} is a {kind} model, which answers by itself: run `raystp impute` without an index"
        raise ModelError(msg)
    return meta


def _place(work: list[SectionTask]) -> tuple[list[EmbeddedSection], list[dict[str, object]]]:
    """Place every section; one that fails is a failure, and the bank does without it."""
    placed: dict[int, EmbeddedSection] = {}
    failures: list[dict[str, object]] = []
    with Progress(STEP, len(work), "section") as progress:
        for position, answer in map_tasks(place_section, work):
            if isinstance(answer, str):
                failures.append({"slide": work[position].section, "stage": STEP, "reason": answer})
            else:
                placed[position] = answer
            progress.add(1, failed=isinstance(answer, str))
    if not placed:
        msg = f"no section could be placed; the first: {failures[0]['reason']}"
        raise ModelError(msg)
    return [placed[position] for position in sorted(placed)], failures


def _build(
    config: IndexConfig, draft: ArtifactWriter, parts: Sequence[EmbeddedSection], genes: list[str], *, queries: pa.Table
) -> dict[str, Any]:
    """Plan the bank, write each shard in a task of its own, and describe the whole."""
    rows, joint = sum(len(part.spots) for part in parts), parts[0].joint
    want = IndexParams(kind=config.kind, recall=config.recall, k=config.recall_k, form=config.expression)
    drawn = sample_rows(rows, want)
    plan = plan_index(draft.path, *_sample(parts, drawn), rows=rows, metric=config.metric, want=want)
    shards = _write(config, draft, plan, parts=parts, bytes_a_row=4 * (joint + len(genes)))
    table = pa.concat_tables([rows_of(part) for part in parts])
    return describe(draft.path, plan, shards, table, genes=genes, queries=asked(queries, want.seed))


def _write(
    config: IndexConfig, draft: ArtifactWriter, plan: IndexPlan, *, parts: Sequence[EmbeddedSection], bytes_a_row: int
) -> list[dict[str, Any]]:
    rows = sum(len(part.spots) for part in parts)
    cuts = cut(rows, config.shards) if config.shards else cut_by_bytes(rows, bytes_a_row, config.shard_bytes)
    work = [ShardTask(number, pieces(parts, *bounds), plan, draft.path) for number, bounds in enumerate(cuts)]
    described: dict[int, dict[str, Any]] = {}
    with Progress(STEP, len(work), "shard") as progress:
        for position, answer in map_tasks(write_one_shard, work, cpus=config.run.cpus_per_shard):
            if isinstance(answer, str):
                raise ModelError(answer)
            described[position] = answer
            progress.add(1)
    return [described[number] for number in range(len(work))]


def _sample(parts: Sequence[EmbeddedSection], drawn: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return the vectors of rising rows over all parts, and whose they are."""
    vectors, patients, at = [], [], 0
    for part in parts:
        own = drawn[(drawn >= at) & (drawn < at + len(part.spots))] - at
        vectors.append(part.vectors()[own])
        patients += [part.patient] * len(own)
        at += len(part.spots)
    return np.concatenate(vectors), patients
