"""Change an index: add sections or remove patients. A change writes a new index; the old one may then be deleted."""

import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from raystp.artifacts import MANIFEST, Artifact, ArtifactWriter, create_or_open, open_artifact, resolve
from raystp.errors import ArtifactError, some
from raystp.expression.embeddings.join import input_roles
from raystp.expression.sections import sections_of
from raystp.expression.training_set import SpotTable
from raystp.index import change
from raystp.index.description import IndexDescription
from raystp.index.expression.measured import split_missing
from raystp.index.open import open_reference_index
from raystp.index.queries import (
    drop_patients,
    evenly_spaced,
    limit_per_section,
    queries_table,
    read_queries,
    recall_queries,
    write_queries,
)
from raystp.index.reference import ReferenceRows
from raystp.models.store import load_model
from raystp.steps.embedding_source import open_embeddings_for
from raystp.steps.index.config import IndexConfig, Vectors
from raystp.steps.index.work import Embeddings, PanelNames, embed_table, load_contrastive, unmeasured_warnings
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

STEP = "index"
STORED_VECTORS: dict[Vectors, str] = {"expression": "spot", "image": "image"}
"""Value of the config's `vectors` -> value in the manifest, as every version stores it."""


def add_sections(config: IndexConfig, base: Artifact) -> Artifact:
    """Write the base with further sections."""
    store = config.run.store
    spots, model = resolve(store, str(config.spots), "spots"), _model_of(base, store)
    if "bulk" in load_model(model.path)[2]:
        msg = f"base: {base.manifest.folder} has a row per case; no section can be added: build it with `reference`"
        raise ArtifactError(msg)
    embeddings = open_embeddings_for(load_model(model.path)[2], store, config.embeddings or (), model.path)
    inputs = {"base": base, "spots": spots, **input_roles("embeddings", embeddings), "model": model}
    writer = create_or_open(config, STEP, inputs)
    if isinstance(writer, Artifact):
        return writer
    names = config.reference or []
    _check_new(base, names)
    contrastive, panel = load_contrastive(model.path), PanelNames.of(load_model(model.path)[2])
    table = panel.table(spots, embeddings, names)
    vectors, images = embed_table(contrastive, table, _vectors_of(base))
    reference = _reference(table, vectors, spots, list(contrastive.genes))
    queries = _add_queries(read_queries(base.path, base.manifest.notes), table, images, reference.patients)
    old = _description_of(base)
    description = change.extend(
        base.path, old, reference, writer.path, shards=config.shards or 1, queries=_recall_queries(queries, old)
    )
    logger.info(f"index: {len(table.spots)} spots of {some(names)} added to {base.manifest.folder}")
    unmeasured_warnings(panel.genes, reference.unmeasured)
    slides = [*base.manifest.notes["slides"], *table.slides]
    return _finish(writer, description, base, slides, queries=queries)


def remove_patients(config: IndexConfig, base: Artifact) -> Artifact:
    """Write the base without some patients; log, or delete, what else still has their data."""
    writer = create_or_open(config, STEP, {"base": base})
    if isinstance(writer, Artifact):
        index = writer
    else:
        old, queries = _description_of(base), read_queries(base.path, base.manifest.notes)
        queries = drop_patients(queries, config.without) if queries is not None else None
        description = change.remove(base.path, old, config.without, writer.path, queries=_recall_queries(queries, old))
        rows = open_reference_index(writer.path, description, only=()).rows
        index = _finish(writer, description, base, sorted(set(rows["slide"].to_pylist())), queries=queries)
        logger.info(f"index: {some(config.without)} removed; {index.manifest.rows['rows']} spots remain")
    older = _older_with_patients(config, base)
    if config.run.delete_base:
        for artifact in older:
            artifact.path.remove()
            logger.info(f"  deleted {artifact.path}")
    elif older:
        paths = some([str(artifact.path) for artifact in older])
        logger.info(f"  {paths} still contain the removed patients: --set run.delete_base=true deletes these indexes")
    model = base.manifest.notes["model"]
    logger.info(f"  models, spots and embeddings are unchanged: {model} may be trained on these patients")
    return index


def _model_of(index: Artifact, store: str) -> Artifact:
    return open_artifact(StoragePath.of(store) / index.manifest.notes["model"], "train")


def _description_of(index: Artifact) -> IndexDescription:
    description: IndexDescription = index.manifest.notes["bank"]
    return description


def _vectors_of(index: Artifact) -> Vectors:
    return "image" if index.manifest.notes["vectors"] == STORED_VECTORS["image"] else "expression"


def _check_new(base: Artifact, names: list[str]) -> None:
    present = [name for name in names if name in _description_of(base)["sections"]]
    if present:
        msg = f"reference: {some(present)} are in {base.manifest.folder} already; name sections that are not in it"
        raise ArtifactError(msg)


def _reference(table: SpotTable, vectors: Embeddings, spots: Artifact, genes: list[str]) -> ReferenceRows:
    sections = sections_of(spots)
    names = [table.sections[number] for number in table.group.tolist()]
    expression, unmeasured = split_missing(table.expression, names)
    return ReferenceRows(
        vectors=vectors,
        expression=expression,
        unmeasured=unmeasured,
        genes=genes,
        sections=names,
        spots=list(table.spots),
        patients=[str(sections[name]["patient"]) for name in names],
        columns={"slide": [str(sections[name]["slide"]) for name in names]},
    )


def _add_queries(
    queries: pa.Table | None, table: SpotTable, images: Embeddings, patients: Sequence[str]
) -> pa.Table | None:
    """Return the base's queries with some tiles of each added section."""
    if queries is None:
        return None
    parts = [queries]
    for number, name in enumerate(table.sections):
        own = np.flatnonzero(table.group == number)
        parts.append(queries_table(images[own[evenly_spaced(len(own))]], name, patients[own[0]]))
    return limit_per_section(pa.concat_tables(parts))


def _recall_queries(queries: pa.Table | None, old: IndexDescription) -> Float32[np.ndarray, "query joint"] | None:
    """Return the queries on which recall is measured; None (rows of the index are used) where none are stored."""
    return recall_queries(queries, old["want"]["seed"]) if queries is not None and queries.num_rows else None


def _finish(
    writer: ArtifactWriter,
    description: IndexDescription,
    base: Artifact,
    slides: list[str],
    *,
    queries: pa.Table | None,
) -> Artifact:
    """Measure the queries on the changed index, and write its manifest."""
    measured: dict[str, object] = {}
    if queries is None or not queries.num_rows:
        logger.warning("  the base has no calibration queries: this index cannot report which tiles are far from it")
    else:
        measured = write_queries(writer.path, open_reference_index(writer.path, description), queries)
    notes = {name: value for name, value in base.manifest.notes.items() if name not in {"queries", "distance"}}
    notes |= {"bank": description, "patients": description["patients"], "slides": slides, **measured}
    rows = {"rows": sum(shard["rows"] for shard in description["shards"]), "shards": len(description["shards"])}
    return writer.finish(rows, [], {**notes, "base": base.manifest.folder})


def _older_with_patients(config: IndexConfig, base: Artifact) -> list[Artifact]:
    """Return the indexes of the base's lineage, the base first, that exist and have any of the removed patients."""
    found, index, store = [], base, StoragePath.of(config.run.store)
    while True:
        if set(config.without) & set(index.manifest.notes["patients"]):
            found.append(index)
        earlier = index.manifest.notes.get("base")
        if earlier is None or not (store / earlier / MANIFEST).exists():
            return found
        index = open_artifact(store / earlier, STEP)
