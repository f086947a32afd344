"""Write an index: a plan that all shards share, each shard by itself, then the description of the whole.

`plan_index`, `write_shard_files` and `describe` may run in different processes, on any machine that can write the
folder; `write_reference_index` does all three here. For all kinds but `hnsw`, results do not depend on the number of
shards.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import cast

import faiss
import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64

from raystp.digests import digest
from raystp.errors import ModelError
from raystp.index import files, recall
from raystp.index.description import (
    VERSION,
    BuildParams,
    CandidateIndexRecord,
    IndexDescription,
    QuantizerRecord,
    ShardRecord,
    with_unmeasured,
)
from raystp.index.expression.files import ExpressionSource
from raystp.index.expression.shard import write_expression
from raystp.index.open import open_reference_index
from raystp.index.reference import ROWS_FILE, ReferenceRows, numbered, shard_ranges
from raystp.index.search import faiss_lists, score
from raystp.index.search.kinds import LISTED, IndexParams, Kind, check_metric, choose_kind, list_count
from raystp.index.search.score import Metric
from raystp.storage import StoragePath

QUANTIZER_FILE = "quantizer.faiss"

_LIST_COST = 10
"""Cost of comparing a row in a list, in rows of a blocked product (9.6: 50,000 rows, 384 of 1,024 lists, 1 thread)."""


@dataclass(frozen=True)
class IndexPlan:
    """What all shards of an index share; plain values, equal in every process that writes a shard."""

    metric: Metric
    kind: Kind
    joint: int
    """Dimensions of the vectors."""
    params: IndexParams
    reason: str
    """Why this kind was chosen."""
    lists: int = 0
    quantizer: QuantizerRecord | None = None


def sample_rows(rows: int, params: IndexParams) -> Int64[np.ndarray, "row"]:
    """Return the rows, rising, whose vectors `plan_index` needs for an index of this size: a fixed random sample."""
    count = min(rows, faiss_lists.PER_LIST * list_count(rows, params))
    return np.sort(np.random.default_rng(params.seed).choice(rows, count, replace=False))


def plan_index(
    folder: StoragePath,
    sample: Float32[np.ndarray, "row joint"],
    patients: Sequence[str],
    *,
    rows: int,
    metric: Metric,
    params: IndexParams | None = None,
) -> IndexPlan:
    """Choose the kind for an index of `rows` rows, train the quantizer that its shards share, and write it.

    `sample` are the vectors of `sample_rows` as the model gave them; `patients` are the patients of these rows. When a
    patient is removed, a quantizer that was trained on their rows is trained again.

    Raises:
        ModelError: an unknown metric or kind, or a vector that is zero or not finite.
    """
    check_metric(metric)
    params = params or IndexParams()
    kind, reason = choose_kind(rows, params)
    plan = IndexPlan(metric, kind, sample.shape[1], params, reason)
    if kind not in LISTED:
        return plan
    prepared = score.prepare(sample, metric, "reference")
    return train_quantizer(folder, plan, prepared, patients, lists=list_count(rows, params))


def train_quantizer(
    folder: StoragePath,
    plan: IndexPlan,
    prepared: Float32[np.ndarray, "row joint"],
    patients: Sequence[str],
    *,
    lists: int,
) -> IndexPlan:
    """Train the quantizer of a listed kind on prepared vectors, write it, and return the plan with its record."""
    lists = min(lists, len(prepared))
    index = faiss_lists.train(prepared, plan.kind, lists, metric=plan.metric, seed=plan.params.seed)
    written = files.write_index(folder, QUANTIZER_FILE, index)
    quantizer: QuantizerRecord = {**written, "saw": {"rows": len(prepared), "patients": sorted(set(patients))}}
    return replace(plan, lists=lists, quantizer=quantizer)


def write_shard_files(
    folder: StoragePath,
    number: int,
    vectors: Float32[np.ndarray, "row joint"],
    expression: ExpressionSource,
    *,
    plan: IndexPlan,
) -> ShardRecord:
    """Write one shard's files from vectors as the model gave them, and return their record.

    `expression` has one row per vector.

    Raises:
        ModelError: a value is not finite, a vector is zero, or the numbers of rows differ.
    """
    prepared = score.prepare(vectors, plan.metric, "reference")
    if not len(prepared) or len(prepared) != expression.shape[0]:
        msg = f"shard {number} has {len(prepared)} vectors and {expression.shape[0]} rows of expression; "
        raise ModelError(msg + "it needs the same number of each, at least one")
    stem = shard_stem(number)
    return {
        "rows": len(prepared),
        "vectors": files.write_array(folder, f"{stem}.vectors.npy", prepared),
        "index": write_candidate_index(folder, number, prepared, plan),
        "expression": write_expression(folder, stem, expression, plan.params.form),
    }


def write_candidate_index(
    folder: StoragePath, number: int, prepared: Float32[np.ndarray, "row joint"], plan: IndexPlan
) -> CandidateIndexRecord | None:
    """Write the FAISS index that finds candidates among a shard's rows; None for an exact index."""
    if plan.kind == "exact":
        return None
    trained = files.read_index(folder, plan.quantizer) if plan.quantizer else None
    index = faiss_lists.fill(trained, np.ascontiguousarray(prepared), plan.kind, plan.metric)
    lists = isinstance(index, faiss.IndexIVF)
    if plan.kind in LISTED:
        faiss_lists.drop_quantizer(index)
    return {**files.write_index(folder, f"{shard_stem(number)}.faiss", index), "lists": lists}


def describe(
    folder: StoragePath,
    plan: IndexPlan,
    shards: Sequence[ShardRecord],
    rows: pa.Table,
    *,
    genes: Sequence[str],
    queries: Float32[np.ndarray, "query joint"] | None = None,
) -> IndexDescription:
    """Write the table of rows, measure recall, and return the description of an index whose shards are written.

    `rows` are the shards' tables (`reference.rows_table`), concatenated. `queries`, as a model gives them, are those on
    which search parameters and recall are measured; without them, rows of the index are. An index of kind `auto` that
    misses its target becomes an exact one.
    """
    table = numbered(rows)
    (folder / ROWS_FILE).write_table(table)
    description: IndexDescription = {
        "version": VERSION,
        "metric": plan.metric,
        "kind": plan.kind,
        "why": plan.reason,
        "joint": plan.joint,
        "genes": list(genes),
        "want": _build_params(plan.params),
        "lists": plan.lists,
        "quantizer": plan.quantizer,
        "shards": list(shards),
        "rows": {"file": ROWS_FILE, "sha256": digest(folder / ROWS_FILE)},
        "patients": sorted(set(table["patient"].to_pylist())),
        "sections": sorted(set(table["section"].to_pylist())),
        "effort": {},
        "recall": None,
        "below_target": False,
        "lineage": [{"change": "built", "rows": table.num_rows, "shards": len(shards)}],
    }
    if plan.kind == "exact":
        return description
    measured = recall.measure_recall(open_reference_index(folder, description), plan.params, queries)
    description = {**description, **measured}
    return _make_exact(folder, description) if _auto_failed(description) else description


def write_reference_index(
    folder: StoragePath,
    reference: ReferenceRows,
    *,
    shards: int,
    metric: Metric,
    params: IndexParams | None = None,
) -> IndexDescription:
    """Write the files of an index and return its description, which is needed to open them.

    Raises:
        ModelError: more shards than rows, an unknown metric or kind, or a value that is not finite.
    """
    params, total = params or IndexParams(), len(reference.vectors)
    ranges = shard_ranges(total, shards)
    check_metric(metric)
    sample = sample_rows(total, params)
    patients = [reference.patients[row] for row in sample.tolist()]
    plan = plan_index(folder, reference.vectors[sample], patients, rows=total, metric=metric, params=params)
    records = [
        write_shard_files(folder, number, reference.vectors[a:b], reference.expression[a:b], plan=plan)
        for number, (a, b) in enumerate(ranges)
    ]
    description = describe(folder, plan, records, reference.rows(), genes=reference.genes)
    return with_unmeasured(description, reference.unmeasured)


def shard_stem(number: int) -> str:
    """Return the common prefix of a shard's file names."""
    return f"shard-{number:05d}"


def plan_of(description: IndexDescription) -> IndexPlan:
    """Return the plan that a described index was written with."""
    return IndexPlan(
        metric=description["metric"],
        kind=description["kind"],
        joint=description["joint"],
        params=IndexParams(**description["want"]),  # type: ignore[arg-type]  # the kind is stored as plain text
        reason=description["why"],
        lists=description["lists"],
        quantizer=description["quantizer"],
    )


def _build_params(params: IndexParams) -> BuildParams:
    """Return the parameters as stored; `prefer` is left out at its default, which earlier versions do not know."""
    values = asdict(params)
    if params.prefer == IndexParams.prefer:
        del values["prefer"]
    return cast("BuildParams", values)


def _auto_failed(description: IndexDescription) -> bool:
    """Return whether `auto` chose a kind that misses its target, or that needs so many lists that it saves nothing."""
    if description["want"]["kind"] != "auto":
        return False
    many = description["kind"] in LISTED and _LIST_COST * description["effort"]["nprobe"] > description["lists"]
    return bool(description["below_target"] or many)


def _make_exact(folder: StoragePath, description: IndexDescription) -> IndexDescription:
    """Delete the files of an approximate kind and return the description of an exact index."""
    kind, nprobe, sentence = description["kind"], description["effort"]["nprobe"], description["sentence"]
    reason = f"{kind} needs {nprobe} of {description['lists']} lists" if kind in LISTED else f"{kind} misses its target"
    for name in files.file_names([description["quantizer"], [shard["index"] for shard in description["shards"]]]):
        (folder / name).remove()
    return {
        **description,
        "kind": "exact",
        "why": f"auto: exact, because {reason}: {sentence}",
        "quantizer": None,
        "lists": 0,
        "effort": {},
        "recall": None,
        "below_target": False,
        "shards": [{**shard, "index": None} for shard in description["shards"]],
        "sentence": "every row is compared",
    }
