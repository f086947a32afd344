"""Tasks of `index`: embed a section's spots, and write a shard of them.

Each section's vectors and expression are written to `parts/` first, so that a process has at most one section or one
shard in memory. Shards are then cut over the rows of all sections.
"""

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from jaxtyping import Float32

from raystp.artifacts import Artifact
from raystp.errors import failure_as_reason, some
from raystp.expression.genes.names import Aliases
from raystp.expression.labels import DEFAULT_LABELS, Labels
from raystp.expression.sections import check_panel, sections_of
from raystp.expression.training_set import SpotTable, join_section, stack_sections
from raystp.index.description import ExpressionRecord, ShardRecord
from raystp.index.expression.forms import SparseExpression
from raystp.index.expression.measured import split_missing
from raystp.index.expression.shard import open_expression, write_expression
from raystp.index.queries import evenly_spaced, queries_table
from raystp.index.reference import rows_table
from raystp.index.write import IndexPlan, write_shard_files
from raystp.models.methods import open_predictor
from raystp.models.predict import embed_reference
from raystp.models.predictor import ContrastivePredictor
from raystp.models.store import load_model
from raystp.steps.index.config import Vectors
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

Embeddings = Float32[np.ndarray, "spot joint"]


@dataclass(frozen=True)
class PanelNames:
    """Names of a model's genes, the sections that have these names, and the kind of its labels."""

    genes: tuple[str, ...]
    aliases: Aliases
    trained: tuple[str, ...]
    labels: Labels = DEFAULT_LABELS

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> "PanelNames":
        """Return the names in a model's record."""
        return cls(tuple(meta["genes"]), meta.get("gene_aliases", {}), tuple(meta["train"]), Labels.of(meta))

    def table(self, spots: Artifact, embeddings: Artifact, sections: Sequence[str]) -> SpotTable:
        """Return the spots of some sections; raises SectionError where a section's genes have other names."""
        known = sections_of(spots)
        joined = [join_section(spots, embeddings, name) for name in sections]
        for one in joined:
            others = [name for name in self.trained if name in known]
            check_panel(one.counts, self.genes, self.aliases, spots=spots, others=others)
        return stack_sections(joined, self.genes, self.aliases, self.labels)


@dataclass(frozen=True)
class SectionTask:
    """A section to embed."""

    model: StoragePath
    spots: Artifact
    embeddings: Artifact
    section: str
    vectors: Vectors
    target: StoragePath
    names: PanelNames


@dataclass(frozen=True)
class EmbeddedSection:
    """An embedded section: its spots, and the folder of its arrays."""

    section: str
    slide: str
    patient: str
    spots: list[str]
    joint: int
    """Dimensions of the vectors."""
    folder: StoragePath
    expression: ExpressionRecord
    unmeasured: list[int] = field(default_factory=list)
    """Genes (columns) that the section has not measured; its expression is 0 there."""
    stem: str = ""
    """Start of its files' names, where that is not the section's name."""

    def vectors(self) -> Embeddings:
        """Return the vectors of the index as the model gave them, mapped where the store is on this machine."""
        with (self.folder / f"{self.stem or self.section}.vectors.npy").local() as path:
            vectors: Embeddings = np.load(path, mmap_mode="r", allow_pickle=False)
            return vectors

    def queries(self, count: int) -> pa.Table:
        """Return some of the section's embedded tiles as queries."""
        with (self.folder / f"{self.stem or self.section}.images.npy").local() as path:
            images: Embeddings = np.load(path, allow_pickle=False)
            return queries_table(images[evenly_spaced(len(images), count)], self.section, self.patient)


@failure_as_reason
def embed_section(task: SectionTask) -> EmbeddedSection:
    """Embed a section's spots and write the arrays; a failure becomes its message."""
    model = load_contrastive(task.model)
    table = task.names.table(task.spots, task.embeddings, [task.section])
    vectors, images = embed_table(model, table, task.vectors)
    folder = task.target / "parts"
    for name, array in (("vectors", vectors), ("images", images[evenly_spaced(len(images))])):
        save_array(folder / f"{task.section}.{name}.npy", array)
    stored, unmeasured = split_missing(table.expression, [task.section] * len(table.spots))
    expression = write_expression(folder, task.section, sp.csr_array(stored), "csr")
    section = sections_of(task.spots)[task.section]
    slide, patient, spots = section["slide"], section["patient"], list(table.spots)
    lacking = unmeasured.get(task.section, [])
    return EmbeddedSection(task.section, slide, patient, spots, vectors.shape[1], folder, expression, lacking)


def unmeasured_warnings(genes: Sequence[str], unmeasured: Mapping[str, Sequence[int]]) -> dict[str, list[str]]:
    """Return section -> a warning about the genes that it has not measured, and log each."""
    warnings = {}
    for section, columns in unmeasured.items():
        if columns:
            names = some([genes[column] for column in columns])
            warning = (
                f"{len(genes) - len(columns)} of {len(genes)} genes of the panel are measured here; its spots have no "
                f"vote for {names}"
            )
            warnings[section] = [warning]
            logger.warning(f"  {section}: {warning}")
    return warnings


def embed_table(model: ContrastivePredictor, table: SpotTable, vectors: Vectors) -> tuple[Embeddings, Embeddings]:
    """Return the vectors of spots in the index, and the embeddings of their tiles, which serve as queries."""
    images = model.embed_images(table.features)
    return (embed_reference(model, table) if vectors == "expression" else images), images


@functools.lru_cache(maxsize=1)
def load_contrastive(model: StoragePath) -> ContrastivePredictor:
    """Load the model once per process; the driver has checked that it is contrastive."""
    loaded = open_predictor(*load_model(model))
    assert isinstance(loaded, ContrastivePredictor)
    return loaded


Pieces = tuple[tuple[EmbeddedSection, int, int], ...]
"""Rows [first, end) of each of these sections."""


@dataclass(frozen=True)
class ShardTask:
    """A shard to write."""

    number: int
    pieces: Pieces
    plan: IndexPlan
    target: StoragePath


@failure_as_reason
def write_one_shard(task: ShardTask) -> ShardRecord:
    """Write a shard's files and return their record; a failure becomes its message."""
    vectors = np.concatenate([section.vectors()[first:end] for section, first, end in task.pieces])
    expression = [_read_expression(section)[first:end] for section, first, end in task.pieces]
    return write_shard_files(
        task.target, task.number, vectors, sp.csr_array(sp.vstack(expression, format="csr")), plan=task.plan
    )


def pieces_of(sections: Sequence[EmbeddedSection], first: int, end: int) -> Pieces:
    """Return the rows of each section that are the rows [first, end) of all sections."""
    pieces, offset = [], 0
    for section in sections:
        a, b = max(first - offset, 0), min(end - offset, len(section.spots))
        if a < b:
            pieces.append((section, a, b))
        offset += len(section.spots)
    return tuple(pieces)


def section_rows(section: EmbeddedSection) -> pa.Table:
    """Return the table of where a section's rows came from."""
    count = len(section.spots)
    names, patients, slides = ([name] * count for name in (section.section, section.patient, section.slide))
    return rows_table(section.vectors(), names, section.spots, patients, columns={"slide": slides})


def _read_expression(section: EmbeddedSection) -> sp.csr_array:
    expression = open_expression(section.folder, section.expression)
    assert isinstance(expression, SparseExpression)  # `embed_section` wrote it
    return sp.csr_array((expression.values, expression.columns, expression.starts), shape=expression.shape)


def save_array(file: StoragePath, array: np.ndarray) -> None:
    """Write an array in float32."""
    file.write_file(lambda path: np.save(path, np.ascontiguousarray(array, np.float32), allow_pickle=False))
