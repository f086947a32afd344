"""Change an index by writing a new one; unchanged files are hard-linked and the old index is not modified.

`extend` adds shards. `remove` rewrites every file that has data of the removed patients: shards with their rows, the
table of rows, and, where the quantizer was trained on them, the quantizer and every shard's lists (a centroid of few
rows is nearly one of them). The description names the remaining patients and the number of removed rows, not the
removed patients. Once the old folder is deleted too, no file has any of their vectors or expression.
"""

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Int64

from raystp.digests import digest_of
from raystp.errors import ArtifactError, ModelError, some
from raystp.index import files
from raystp.index.description import (
    VERSION,
    VERSION_WITH_UNMEASURED,
    Change,
    IndexDescription,
    ShardRecord,
    with_unmeasured,
)
from raystp.index.expression.shard import write_expression
from raystp.index.open import ReferenceIndex, open_reference_index
from raystp.index.reference import ReferenceRows, shard_ranges
from raystp.index.search import score
from raystp.index.search.kinds import LISTED
from raystp.index.shard import IndexShard
from raystp.index.write import (
    IndexPlan,
    describe,
    plan_of,
    sample_rows,
    shard_stem,
    train_quantizer,
    write_candidate_index,
    write_shard_files,
)
from raystp.storage import StoragePath


def extend(
    old: StoragePath,
    description: IndexDescription,
    reference: ReferenceRows,
    new: StoragePath,
    *,
    shards: int = 1,
    queries: Float32[np.ndarray, "query joint"] | None = None,
) -> IndexDescription:
    """Write an index with further spots into a new folder, in new shards after the old ones; return its description.

    `queries` are as in `describe`.

    Raises:
        ModelError: other genes, other columns of rows, other dimensions, or values that are not finite.
        ArtifactError: an index of version 1, or a file that is damaged.
    """
    index = _open(old, description)
    rows = reference.rows()
    if list(reference.genes) != index.genes or not rows.schema.equals(index.rows.schema):
        msg = (
            f"the index in {old} has {len(index.genes)} genes and row columns {index.rows.schema.names}; the new spots "
            f"have {len(reference.genes)} genes and columns {rows.schema.names}; both must be equal, in the same order"
        )
        raise ModelError(msg)
    score.check_dimensions(index.joint, reference.vectors.shape[1])
    _check_folders_differ(old, new)
    plan, kept = plan_of(description), list(description["shards"])
    last = max(_number(record) for record in kept)
    for name in files.file_names([plan.quantizer, kept]):
        files.reuse(old, new, name)
    added = [
        write_shard_files(new, last + 1 + number, reference.vectors[a:b], reference.expression[a:b], plan=plan)
        for number, (a, b) in enumerate(shard_ranges(len(reference.vectors), shards))
    ]
    table = pa.concat_tables([index.rows, rows])
    extended = describe(new, plan, [*kept, *added], table, genes=index.genes, queries=queries)
    extended = with_unmeasured(extended, {**description.get("unmeasured", {}), **reference.unmeasured})
    return _with_lineage(description, extended, {"change": "extended", "rows": rows.num_rows, "shards": shards})


def remove(
    old: StoragePath,
    description: IndexDescription,
    patients: Collection[str],
    new: StoragePath,
    *,
    queries: Float32[np.ndarray, "query joint"] | None = None,
) -> IndexDescription:
    """Write the index without these patients into a new folder, and return its description.

    The remaining rows keep their order and are numbered again; a shard that loses all its rows is dropped. `queries`
    are as in `describe` and must be of remaining patients.

    Raises:
        ModelError: a patient who is not in the index, or no patient would remain.
        ArtifactError: an index of version 1, or a file that is damaged.
    """
    _check_folders_differ(old, new)
    index = _open(old, description)
    unknown = sorted(set(patients) - set(description["patients"]))
    if unknown or not patients:
        msg = f"patients to remove: {some(unknown)} are not in the index in {old}; it has "
        raise ModelError(msg + some(list(description["patients"])))
    stays = index.rows_without(patients)
    if not stays.any():
        msg = f"no patient would remain in the index in {old}; delete the whole index instead"
        raise ModelError(msg)
    plan, retrained = _retrain(index, plan_of(description), set(patients), new, stays=stays)
    if plan.quantizer and not retrained:
        files.reuse(old, new, plan.quantizer["file"])
    records: list[ShardRecord] = []
    for shard, record in zip(index.shards, description["shards"], strict=True):
        own = stays[shard.first : shard.end]
        if own.all():
            records.append(_keep_shard(old, new, record, shard, plan=plan, retrained=retrained))
        elif own.any():
            records.append(_rewrite_shard(new, record, shard, own, plan=plan))
    table = index.rows.filter(pa.array(stays))
    remaining = describe(new, plan, records, table, genes=index.genes, queries=queries)
    remaining = with_unmeasured(remaining, description.get("unmeasured", {}))
    change: Change = {"change": "removed", "rows": int((~stays).sum()), "patients": len(set(patients))}
    return _with_lineage(description, remaining, change)


def _open(folder: StoragePath, description: IndexDescription) -> ReferenceIndex:
    if description.get("version") not in {VERSION, VERSION_WITH_UNMEASURED}:
        msg = f"{folder} has an index of version {description.get('version')}, which can be read but not changed; "
        raise ArtifactError(msg + "run `raystp index` again with this version")
    return open_reference_index(folder, description)


def _check_folders_differ(old: StoragePath, new: StoragePath) -> None:
    if old == new:
        msg = f"a changed index needs a folder of its own; {old} was given for both the old and the new one"
        raise ModelError(msg)


def _retrain(
    index: ReferenceIndex, plan: IndexPlan, patients: set[str], new: StoragePath, *, stays: Bool[np.ndarray, "row"]
) -> tuple[IndexPlan, bool]:
    """Return the plan, and whether its quantizer was trained again because it was trained on the patients."""
    if plan.kind not in LISTED or plan.quantizer is None or not patients & set(plan.quantizer["saw"]["patients"]):
        return plan, False
    remaining = np.flatnonzero(stays)
    sample = remaining[sample_rows(len(remaining), plan.params)]
    owners = index.rows["patient"].take(pa.array(sample)).to_pylist()
    lists = min(plan.lists, max(1, len(sample)))
    return train_quantizer(new, replace(plan, quantizer=None), _vectors(index, sample), owners, lists=lists), True


def _keep_shard(
    old: StoragePath, new: StoragePath, record: ShardRecord, shard: IndexShard, *, plan: IndexPlan, retrained: bool
) -> ShardRecord:
    """Link the files of a shard that loses no row; with a retrained quantizer, write its lists again."""
    kept: ShardRecord = {"rows": record["rows"], "vectors": record["vectors"], "expression": record["expression"]}
    if not retrained:
        kept["index"] = record["index"]
    for name in files.file_names(kept):
        files.reuse(old, new, name)
    if retrained:
        kept["index"] = write_candidate_index(new, _number(record), shard.vectors, plan)
    return kept


def _rewrite_shard(
    new: StoragePath, record: ShardRecord, shard: IndexShard, stays: Bool[np.ndarray, "row"], *, plan: IndexPlan
) -> ShardRecord:
    """Write a shard again with its remaining rows."""
    rows, number = np.flatnonzero(stays), _number(record)
    vectors = np.ascontiguousarray(shard.vectors[rows])
    return {
        "rows": len(rows),
        "vectors": files.write_array(new, f"{shard_stem(number)}.vectors.npy", vectors),
        "index": write_candidate_index(new, number, vectors, plan),
        "expression": write_expression(new, shard_stem(number), shard.expression, plan.params.form, rows=rows),
    }


def _vectors(index: ReferenceIndex, rows: Int64[np.ndarray, "row"]) -> Float32[np.ndarray, "row joint"]:
    """Return the prepared vectors of rising rows."""
    parts = [shard.vectors[rows[(rows >= shard.first) & (rows < shard.end)] - shard.first] for shard in index.shards]
    return np.concatenate(parts)


def _number(record: ShardRecord) -> int:
    """Return the number in a shard's file names, which stays the same when earlier shards are dropped."""
    return int(record["vectors"]["file"].removeprefix("shard-").partition(".")[0])


def _with_lineage(old: IndexDescription, new: IndexDescription, change: Change) -> IndexDescription:
    """Return the new description with the change appended to the lineage; `of` is the old description's digest."""
    return {**new, "lineage": [*old["lineage"], {**change, "of": digest_of(old)}]}
