"""An index of whole cases: a row is the embedding of a case's label, with the label as its expression."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float32

from raystp.artifacts import Artifact
from raystp.errors import ConfigError, failure_as_reason, some
from raystp.expression.bulk.labels import labels_of
from raystp.expression.bulk.tables import read_table
from raystp.index.expression.shard import write_expression
from raystp.models.predictor import BagEmbedder
from raystp.steps.index.config import IndexConfig, Vectors
from raystp.steps.index.work import EmbeddedSection, load_contrastive, save_array
from raystp.steps.train.cases.cohort import Case, cohort_of, features_of
from raystp.storage import StoragePath


@dataclass(frozen=True)
class CaseTask:
    """A case to embed."""

    model: StoragePath
    embeddings: Artifact
    case: Case
    number: int
    label: Float32[np.ndarray, " gene"]
    vectors: Vectors
    target: StoragePath

    @property
    def section(self) -> str:
        """Name of the case: a section of one row."""
        return self.case.name


def case_tasks(
    config: IndexConfig, meta: Mapping[str, Any], paths: tuple[StoragePath, StoragePath], embeddings: Artifact
) -> list[CaseTask]:
    """Return a task for each case of `reference`, or each that the model was trained and validated on.

    `paths` are those of the model and of the new index. Raises ConfigError for a table in another unit, and for a case
    that cannot be used.
    """
    cases, names = config.cases, config.reference or [*meta["train"], *meta["validation"]]
    assert cases is not None  # called only then
    if cases.scale != meta["bulk"]["scale"]:
        msg = f"cases.scale: the model was trained on a table with scale {meta['bulk']['scale']!r}, got {cases.scale!r}"
        raise ConfigError(f"{msg}; set the scale that describes the table's values")
    path = cases.path(config.run.store)
    table = read_table(path, cases.case)
    cohort = cohort_of(cases, embeddings, table.cases)
    absent = [name for name in names if name not in cohort.cases]
    if absent:
        reason = cohort.left_out.get(f"case {absent[0]}", f"{path} has no such case")
        msg = f"reference: {len(absent)} of {len(names)} cases cannot be indexed ({some(absent)}): {reason}"
        raise ConfigError(msg)
    rows = labels_of(table, path, scale=cases.scale, cases=names).of(names, meta["genes"])
    model, target = paths
    return [
        CaseTask(model, embeddings, cohort.cases[name], number, rows[number], config.vectors or "expression", target)
        for number, name in enumerate(names)
    ]


@failure_as_reason
def embed_case(task: CaseTask) -> EmbeddedSection:
    """Embed a case and write the arrays of its row; a failure becomes its message."""
    model = load_contrastive(task.model)
    assert isinstance(model, BagEmbedder)  # the driver has checked it
    bag = model.embed_bag(features_of(task.embeddings, task.case.slides))[None]
    vector = model.embed_spots(task.label[None]) if task.vectors == "expression" else bag
    folder, stem = task.target / "parts", f"case-{task.number:06d}"
    save_array(folder / f"{stem}.vectors.npy", vector)
    save_array(folder / f"{stem}.images.npy", bag)
    expression = write_expression(folder, stem, sp.csr_array(task.label[None]), "csr")
    case = task.case
    return EmbeddedSection(
        case.name, case.slides[0], case.patient, [case.name], vector.shape[1], folder, expression, stem=stem
    )
