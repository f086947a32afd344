"""A bank that changes: sections that come, patients who go. The change is a new index; the old one may be deleted."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from raystp.artifacts import MANIFEST, Artifact, create_or_open, open_artifact, resolve
from raystp.errors import ArtifactError, some
from raystp.expression.sections import sections_of
from raystp.expression.training_set import SpotTable, join_section, stack_sections
from raystp.index import change
from raystp.index.opened import open_reference_index
from raystp.index.reference import ReferenceRows
from raystp.steps.index.config import IndexConfig
from raystp.steps.index.queries import asked, measured, read, spread_over, table_of, thinned, without
from raystp.steps.index.tasks import contrastive, placed
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

STEP = "index"


def added(config: IndexConfig, base: Artifact) -> Artifact:
    """Leave the base with further sections."""
    store = config.run.store
    spots, embed = resolve(store, str(config.spots), "spots"), resolve(store, str(config.embeddings), "embed")
    model = open_artifact(StoragePath.of(store) / base.manifest.notes["model"], "train")
    draft = create_or_open(config, STEP, {"base": base, "spots": spots, "embeddings": embed, "model": model})
    if isinstance(draft, Artifact):
        return draft
    names = config.reference or []
    _check_new(base, names)
    ready = contrastive(model.path)
    rows = stack_sections([join_section(spots, embed, name) for name in names], tuple(ready.genes))
    vectors, images = placed(ready, rows, base.manifest.notes["vectors"])
    reference = _reference(rows, vectors, spots, list(ready.genes))
    queries = _with(read(base), rows, images, reference.patients)
    bank = base.manifest.notes["bank"]
    told = change.extend(
        base.path, bank, reference, draft.path, shards=config.shards or 1, queries=_asked(queries, bank)
    )
    logger.info(f"index: {len(rows.spots)} spots of {some(names)} added to {base.manifest.folder}")
    slides = [*base.manifest.notes["slides"], *rows.slides]
    return draft.finish(*_told(told, base, slides, _measured(draft.path, told, queries)))


def removed(config: IndexConfig, base: Artifact) -> Artifact:
    """Leave the base without some patients, and say what else still holds them."""
    draft = create_or_open(config, STEP, {"base": base})
    if not isinstance(draft, Artifact):
        before, queries = base.manifest.notes["bank"], read(base)
        queries = without(queries, config.without) if queries is not None else None
        told = change.remove(base.path, before, config.without, draft.path, queries=_asked(queries, before))
        slides = sorted(set(open_reference_index(draft.path, told, only=()).rows["slide"].to_pylist()))
        draft = draft.finish(*_told(told, base, slides, _measured(draft.path, told, queries)))
        logger.info(f"index: {some(config.without)} removed; {draft.manifest.rows['rows']} spots are left")
    older = _older(config, base)
    if config.run.delete_base:
        for one in older:
            one.path.remove()
            logger.info(f"  deleted {one.path}")
    elif older:
        logger.info(
            f"  {some([str(one.path) for one in older])} still hold them: --set run.delete_base=true deletes those"
        )
    model = base.manifest.notes["model"]
    logger.info(f"  models, spots and embeddings are not touched: {model} may have learned from them")
    return draft


def _check_new(base: Artifact, names: list[str]) -> None:
    there = [name for name in names if name in base.manifest.notes["bank"]["sections"]]
    if there:
        msg = f"reference: {some(there)} are in {base.manifest.folder} already: a spot is in a bank once"
        raise ArtifactError(msg)


def _reference(rows: SpotTable, vectors: Any, spots: Artifact, genes: list[str]) -> ReferenceRows:
    known = sections_of(spots)
    of = [rows.sections[number] for number in rows.group.tolist()]
    return ReferenceRows(
        vectors=vectors,
        expression=rows.expression,
        genes=genes,
        sections=of,
        spots=list(rows.spots),
        patients=[str(known[name]["patient"]) for name in of],
        more={"slide": [str(known[name]["slide"]) for name in of]},
    )


def _with(
    queries: pa.Table | None, rows: SpotTable, images: Float32[np.ndarray, "spot joint"], patients: Sequence[str]
) -> pa.Table | None:
    """Return the base's queries with a few tiles of each section that came."""
    if queries is None:
        return None
    parts = [queries]
    for number, name in enumerate(rows.sections):
        own = np.flatnonzero(rows.group == number)
        parts.append(table_of(images[own[spread_over(len(own))]], name, patients[own[0]]))
    return thinned(pa.concat_tables(parts))


def _asked(queries: pa.Table | None, bank: Mapping[str, Any]) -> Float32[np.ndarray, "query joint"] | None:
    """Return what recall is measured with: tiles, as when it was built, or rows of the bank where none were kept."""
    return asked(queries, bank["want"]["seed"]) if queries is not None and queries.num_rows else None


def _measured(place: StoragePath, described: Mapping[str, Any], queries: pa.Table | None) -> Mapping[str, Any]:
    """Return the notes about queries, measured on the changed bank; none where none are left."""
    if queries is None or not queries.num_rows:
        logger.warning("  no queries were kept with the base: how far tiles of its kind lie is not known of this index")
        return {}
    return measured(place, open_reference_index(place, described), queries)


def _told(
    described: dict[str, Any], base: Artifact, slides: list[str], measured_: Mapping[str, Any]
) -> tuple[dict[str, int], list[Any], dict[str, Any]]:
    """Return rows, failures and notes of a changed index."""
    notes = {name: value for name, value in base.manifest.notes.items() if name not in {"queries", "distance"}}
    notes |= {"bank": described, "patients": described["patients"], "slides": slides, **measured_}
    rows = sum(one["rows"] for one in described["shards"])
    return {"rows": rows, "shards": len(described["shards"])}, [], {**notes, "base": base.manifest.folder}


def _older(config: IndexConfig, base: Artifact) -> list[Artifact]:
    """Return the base and what it was made from in turn, as far as they are there and hold any of the patients."""
    found, one, store = [], base, StoragePath.of(config.run.store)
    while True:
        if set(config.without) & set(one.manifest.notes["patients"]):
            found.append(one)
        before = one.manifest.notes.get("base")
        if before is None or not (store / before / MANIFEST).exists():
            return found
        one = open_artifact(store / before, STEP)
