"""Writing a bank: a plan that all shards share, each shard by itself, then a description of the whole.

`plan_index`, `write_shard_files` and `describe` may run in different processes, on any machine that reaches the folder;
`write_reference_index` does all three here. Any cut into shards gives the same answers for the kinds `exact` and `ivf`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from raystp import artifacts
from raystp.errors import ModelError
from raystp.index import files, recall
from raystp.index.cut import cut
from raystp.index.expression.shard import write_expression
from raystp.index.opened import VERSION, open_reference_index
from raystp.index.reference import ROWS_FILE, ReferenceRows, numbered
from raystp.index.search import faiss_lists as lists
from raystp.index.search import score
from raystp.index.search.kinds import LISTED, IndexParams, IndexPlan, check_metric, choose, lists_for
from raystp.index.search.score import Metric
from raystp.storage import StoragePath

QUANTIZER = "quantizer.faiss"

_DEARER = 10
"""What a row in a list costs, in rows of a product in blocks (9.6: 50,000 rows, 384 of 1,024 lists, one thread)."""


def sample_rows(rows: int, want: IndexParams) -> np.ndarray:
    """Return the rows, rising, whose vectors `plan_index` needs of an index of this size: a fixed sample."""
    wanted = min(rows, lists.PER_LIST * lists_for(rows, want))
    return np.sort(np.random.default_rng(want.seed).choice(rows, wanted, replace=False))


def plan_index(
    place: StoragePath,
    sample: Float32[np.ndarray, "row joint"],
    patients: Sequence[str],
    *,
    rows: int,
    metric: Metric,
    want: IndexParams | None = None,
) -> IndexPlan:
    """Choose the kind for a bank of `rows` rows, train what its shards share, and write that into the folder.

    `sample` are the vectors of `sample_rows`, as the model gave them, and `patients` whose they are: a quantizer that
    saw a patient is trained again when the patient is removed.

    Raises:
        ModelError: an unknown metric or kind, or a vector that is zero or not finite.
    """
    check_metric(metric)
    want = want or IndexParams()
    kind, why = choose(rows, want)
    plan = IndexPlan(metric, kind, sample.shape[1], want, why)
    if kind not in LISTED:
        return plan
    prepared = score.prepare(sample, metric, "bank")
    return trained(place, plan, prepared, patients, count=lists_for(rows, want))


def trained(
    place: StoragePath,
    plan: IndexPlan,
    prepared: Float32[np.ndarray, "row joint"],
    patients: Sequence[str],
    *,
    count: int,
) -> IndexPlan:
    """Train what the shards of a listed kind share on prepared vectors, write it, and return the plan with it."""
    count = min(count, len(prepared))
    index = lists.train(prepared, plan.kind, count, metric=plan.metric, seed=plan.want.seed)
    written = files.write_index(place, QUANTIZER, index)
    saw = {"rows": len(prepared), "patients": sorted(set(patients))}
    return replace(plan, lists=count, quantizer={**written, "saw": saw})


def write_shard_files(
    place: StoragePath, number: int, vectors: Float32[np.ndarray, "row joint"], expression: Any, *, plan: IndexPlan
) -> dict[str, Any]:
    """Write one shard's files from vectors as the model gave them, and return their description.

    `expression` is dense, a csr_array or an opened Expression, one row per vector.

    Raises:
        ModelError: a value is not finite, a vector is zero, or rows differ in number.
    """
    prepared = score.prepare(vectors, plan.metric, "bank")
    if not len(prepared) or len(prepared) != expression.shape[0]:
        msg = f"shard {number} has {len(prepared)} vectors and {expression.shape[0]} rows of expression: as many of "
        raise ModelError(msg + "each, and at least one, are wanted")
    stem = stem_of(number)
    return {
        "rows": len(prepared),
        "vectors": files.write_array(place, f"{stem}.vectors.npy", prepared),
        "index": write_shard_index(place, number, prepared, plan),
        "expression": write_expression(place, stem, expression, plan.want.form),
    }


def write_shard_index(
    place: StoragePath, number: int, prepared: Float32[np.ndarray, "row joint"], plan: IndexPlan
) -> dict[str, Any] | None:
    """Write what finds candidates among a shard's rows; nothing for an exact bank."""
    if plan.kind == "exact":
        return None
    shared = files.read_index(place, plan.quantizer) if plan.quantizer else None
    index = lists.fill(shared, np.ascontiguousarray(prepared), plan.kind, plan.metric)
    listed = isinstance(index, faiss.IndexIVF)
    if plan.kind in LISTED:
        index = lists.without_quantizer(index)
    return {**files.write_index(place, f"{stem_of(number)}.faiss", index), "lists": listed}


def describe(
    place: StoragePath,
    plan: IndexPlan,
    shards: Sequence[Mapping[str, Any]],
    rows: pa.Table,
    *,
    genes: Sequence[str],
    queries: Float32[np.ndarray, "query joint"] | None = None,
) -> dict[str, Any]:
    """Write the table of rows, measure recall, and return the description of a bank whose shards are written.

    `rows` are the shards' tables (`reference.rows_table`), one after the other. `queries`, as a model gives them, are
    what effort and recall are measured on; without them, rows of the bank. A bank of kind `auto` that misses its target
    becomes an exact one.
    """
    table = numbered(rows)
    (place / ROWS_FILE).write_table(table)
    description = {
        "version": VERSION,
        "metric": plan.metric,
        "kind": plan.kind,
        "why": plan.why,
        "joint": plan.joint,
        "genes": list(genes),
        "want": asdict(plan.want),
        "lists": plan.lists,
        "quantizer": plan.quantizer,
        "shards": [dict(one) for one in shards],
        "rows": {"file": ROWS_FILE, "sha256": artifacts.digest(place / ROWS_FILE)},
        "patients": sorted(set(table["patient"].to_pylist())),
        "sections": sorted(set(table["section"].to_pylist())),
        "effort": {},
        "recall": None,
        "below_target": False,
        "lineage": [{"change": "built", "rows": table.num_rows, "shards": len(shards)}],
    }
    if plan.kind == "exact":
        return description
    description |= recall.measured(open_reference_index(place, description), plan.want, queries)
    return _exact_after_all(place, description) if _lost(description) else description


def write_reference_index(
    place: StoragePath,
    reference: ReferenceRows,
    *,
    shards: int,
    metric: Metric,
    want: IndexParams | None = None,
) -> dict[str, Any]:
    """Write a bank's files into a folder and return its description, without which they cannot be opened.

    Raises:
        ModelError: more shards than rows, an unknown metric or kind, or a value that is not finite.
    """
    want, total = want or IndexParams(), len(reference.vectors)
    cuts = cut(total, shards)
    check_metric(metric)
    drawn = sample_rows(total, want)
    patients = [reference.patients[row] for row in drawn.tolist()]
    plan = plan_index(place, reference.vectors[drawn], patients, rows=total, metric=metric, want=want)
    described = [
        write_shard_files(place, number, reference.vectors[a:b], reference.expression[a:b], plan=plan)
        for number, (a, b) in enumerate(cuts)
    ]
    return describe(place, plan, described, reference.rows(), genes=reference.genes)


def stem_of(number: int) -> str:
    """Return how the names of a shard's files begin."""
    return f"shard-{number:05d}"


def plan_of(description: Mapping[str, Any]) -> IndexPlan:
    """Return the plan that a described bank was written by."""
    return IndexPlan(
        metric=description["metric"],
        kind=description["kind"],
        joint=description["joint"],
        want=IndexParams(**description["want"]),
        why=description["why"],
        lists=description["lists"],
        quantizer=description["quantizer"],
    )


def _lost(description: Mapping[str, Any]) -> bool:
    """Say whether `auto` chose a kind that misses its target, or reaches it in so many lists that nothing is won."""
    if description["want"]["kind"] != "auto":
        return False
    return bool(description["below_target"] or _DEARER * description["effort"]["nprobe"] > description["lists"])


def _exact_after_all(place: StoragePath, description: dict[str, Any]) -> dict[str, Any]:
    kind, effort, said = description["kind"], description["effort"], description["sentence"]
    for name in files.names_of([description["quantizer"], [one["index"] for one in description["shards"]]]):
        (place / name).remove()
    shards = [{**one, "index": None} for one in description["shards"]]
    why = (
        f"auto: exact, for {kind} did not pay: looking into {effort['nprobe']} of {description['lists']} lists, {said}"
    )
    taken: dict[str, Any] = {"kind": "exact", "why": why, "quantizer": None, "lists": 0, "effort": {}, "recall": None}
    return {**description, **taken, "below_target": False, "shards": shards, "sentence": "every row is compared"}
