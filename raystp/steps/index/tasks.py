"""What the tasks of `index` do: place a section's spots in the model's space, and write a shard of them.

A section's vectors and expression are set aside under `parts/`, so that no process ever holds more than one section or
one shard; shards are then cut over all sections' rows.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from jaxtyping import Float32

from raystp.artifacts import Artifact
from raystp.errors import RaystpError
from raystp.expression.sections import sections_of
from raystp.expression.training_set import SpotTable, join_section, stack_sections
from raystp.index.expression.forms import SparseExpression
from raystp.index.expression.shard import open_expression, write_expression
from raystp.index.reference import rows_table
from raystp.index.search.kinds import IndexPlan
from raystp.index.write import write_shard_files
from raystp.models.methods import open_predictor
from raystp.models.predictor import ContrastivePredictor
from raystp.models.store import load_model
from raystp.steps.index.queries import spread_over, table_of
from raystp.storage import StoragePath

Vectors = Float32[np.ndarray, "spot joint"]


@dataclass(frozen=True)
class SectionTask:
    """One section to place."""

    model: StoragePath
    spots: Artifact
    embed: Artifact
    section: str
    bank: str
    target: StoragePath


@dataclass(frozen=True)
class EmbeddedSection:
    """A section that was placed: who it is of, its spots, and where its arrays lie."""

    section: str
    slide: str
    patient: str
    spots: list[str]
    joint: int
    place: StoragePath
    expression: dict[str, Any]

    def vectors(self) -> Vectors:
        """Return what the model gave, mapped where the store is on this machine."""
        with (self.place / f"{self.section}.vectors.npy").local() as path:
            found: Vectors = np.load(path, mmap_mode="r", allow_pickle=False)
            return found

    def queries(self, most: int) -> pa.Table:
        """Return a few of the section's tiles, as they are asked for."""
        with (self.place / f"{self.section}.images.npy").local() as path:
            found: Vectors = np.load(path, allow_pickle=False)
            return table_of(found[spread_over(len(found), most)], self.section, self.patient)


def place_section(work: SectionTask) -> EmbeddedSection | str:
    """Place a section's spots and set them aside; return the sentence of a failure."""
    try:
        ready = contrastive(work.model)
        rows = stack_sections([join_section(work.spots, work.embed, work.section)], tuple(ready.genes))
        vectors, images = placed(ready, rows, work.bank)
        folder = work.target / "parts"
        for name, array in (("vectors", vectors), ("images", images[spread_over(len(images))])):
            _save(folder / f"{work.section}.{name}.npy", array)
        expression = write_expression(folder, work.section, sp.csr_array(rows.expression), "csr")
    except RaystpError as error:
        return str(error)
    about = sections_of(work.spots)[work.section]
    spots = list(rows.spots)
    return EmbeddedSection(work.section, about["slide"], about["patient"], spots, vectors.shape[1], folder, expression)


def placed(ready: ContrastivePredictor, rows: SpotTable, bank: str) -> tuple[Vectors, Vectors]:
    """Return the vectors that stand for spots in a bank, and their tiles as queries."""
    images = ready.embed_images(rows.features)
    return (ready.embed_spots(rows.expression) if bank == "spot" else images), images


@functools.lru_cache(maxsize=1)
def contrastive(model: StoragePath) -> ContrastivePredictor:
    """Open the model once per process; the driver has seen that it is a contrastive one."""
    ready = open_predictor(*load_model(model))
    assert isinstance(ready, ContrastivePredictor)
    return ready


@dataclass(frozen=True)
class ShardTask:
    """One shard to write: so many rows of each of these parts."""

    number: int
    pieces: tuple[tuple[EmbeddedSection, int, int], ...]
    plan: IndexPlan
    target: StoragePath


def write_one_shard(work: ShardTask) -> dict[str, Any] | str:
    """Write a shard's files and return their description, or the sentence of a failure."""
    try:
        vectors = np.concatenate([part.vectors()[a:b] for part, a, b in work.pieces])
        opened = [(open_expression(part.place, part.expression), a, b) for part, a, b in work.pieces]
        rows = [_sparse(one)[a:b] for one, a, b in opened if isinstance(one, SparseExpression)]
        return write_shard_files(work.target, work.number, vectors, sp.vstack(rows, format="csr"), plan=work.plan)
    except RaystpError as error:
        return str(error)


def pieces(parts: Sequence[EmbeddedSection], first: int, end: int) -> tuple[tuple[EmbeddedSection, int, int], ...]:
    """Return which rows of which parts the rows [first, end) of all of them are."""
    found, at = [], 0
    for part in parts:
        a, b = max(first - at, 0), min(end - at, len(part.spots))
        if a < b:
            found.append((part, a, b))
        at += len(part.spots)
    return tuple(found)


def rows_of(part: EmbeddedSection) -> pa.Table:
    """Return the table that says where a part's rows came from."""
    count = len(part.spots)
    who = [[name] * count for name in (part.section, part.patient, part.slide)]
    return rows_table(part.vectors(), who[0], part.spots, who[1], more={"slide": who[2]})


def _sparse(one: SparseExpression) -> sp.csr_array:
    return sp.csr_array((one.values, one.columns, one.starts), shape=one.shape)


def _save(place: StoragePath, array: np.ndarray) -> None:
    place.write_file(lambda path: np.save(path, np.ascontiguousarray(array, np.float32), allow_pickle=False))
