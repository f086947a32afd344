"""A bank that changes is a new bank: files that stay are shared with the old one, which is left as it is.

`extend` adds shards. `remove` writes every file anew that held anything of a patient: shards with their rows, the table
of rows, and, where the quantizer was trained on them, the quantizer and what finds candidates in every shard (a
centroid of few rows is nearly one of them). The description names who is left and how many rows went, not whose.
Once the old folder is removed as well, no byte of their vectors or expression is in any file.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Int64

from raystp import artifacts
from raystp.errors import ArtifactError, ModelError, some
from raystp.index import files
from raystp.index.cut import cut
from raystp.index.expression.shard import write_expression
from raystp.index.opened import VERSION, ReferenceIndex, open_reference_index
from raystp.index.reference import ReferenceRows
from raystp.index.search import score
from raystp.index.search.kinds import LISTED, IndexPlan
from raystp.index.shard import IndexShard
from raystp.index.write import (
    describe,
    plan_of,
    sample_rows,
    stem_of,
    trained,
    write_shard_files,
    write_shard_index,
)
from raystp.storage import StoragePath


def extend(
    place_old: StoragePath,
    description: Mapping[str, Any],
    reference: ReferenceRows,
    place_new: StoragePath,
    *,
    shards: int = 1,
    queries: Float32[np.ndarray, "query joint"] | None = None,
) -> dict[str, Any]:
    """Write a bank with further spots into a new folder, in new shards after the old ones, and return its description.

    `queries` are as in `describe`.

    Raises:
        ModelError: other genes, other columns of rows, another dimension, or values that are not finite.
        ArtifactError: a bank of version 1, or a file that is damaged.
    """
    bank = _open(place_old, description)
    rows = reference.rows()
    if list(reference.genes) != bank.genes or not rows.schema.equals(bank.rows.schema):
        msg = f"the bank in {place_old} has {len(bank.genes)} genes and rows with {bank.rows.schema.names}; spots with "
        raise ModelError(msg + f"{len(reference.genes)} genes (the same, in order) and {rows.schema.names} were given")
    score.check_joint(bank.joint, reference.vectors.shape[1])
    _apart(place_old, place_new)
    plan, kept = plan_of(description), list(description["shards"])
    last = max(_number(one) for one in kept)
    for name in files.names_of([plan.quantizer, kept]):
        files.reuse(place_old, place_new, name)
    added = [
        write_shard_files(place_new, last + 1 + number, reference.vectors[a:b], reference.expression[a:b], plan=plan)
        for number, (a, b) in enumerate(cut(len(reference.vectors), shards))
    ]
    table = pa.concat_tables([bank.rows, rows])
    found = describe(place_new, plan, [*kept, *added], table, genes=bank.genes, queries=queries)
    return _after(description, found, {"change": "extended", "rows": rows.num_rows, "shards": shards})


def remove(
    place_old: StoragePath,
    description: Mapping[str, Any],
    patients: Collection[str],
    place_new: StoragePath,
    *,
    queries: Float32[np.ndarray, "query joint"] | None = None,
) -> dict[str, Any]:
    """Write the bank without these patients into a new folder, and return its description.

    Rows that stay keep their order and are counted anew; a shard that loses all its rows is gone. `queries` are as in
    `describe`, and are to be of those who stay.

    Raises:
        ModelError: a patient whom the bank does not have, or nobody would be left.
        ArtifactError: a bank of version 1, or a file that is damaged.
    """
    _apart(place_old, place_new)
    bank = _open(place_old, description)
    strangers = sorted(set(patients) - set(description["patients"]))
    if strangers or not patients:
        msg = f"patients {some(strangers)} were to be removed from the bank in {place_old}, which has "
        raise ModelError(msg + some(list(description["patients"])))
    stays = bank.rows_without(patients)
    if not stays.any():
        msg = f"nobody would be left in the bank in {place_old}: remove the whole index instead"
        raise ModelError(msg)
    plan, renewed = _renewed(bank, plan_of(description), set(patients), place_new, stays=stays)
    if plan.quantizer and not renewed:
        files.reuse(place_old, place_new, plan.quantizer["file"])
    written: list[dict[str, Any]] = []
    for shard, described in zip(bank.shards, description["shards"], strict=True):
        own = stays[shard.first : shard.end]
        if own.all():
            written.append(_shared(place_old, place_new, described, shard, plan=plan, renewed=renewed))
        elif own.any():
            written.append(_without(place_new, described, shard, own, plan=plan))
    table = bank.rows.filter(pa.array(stays))
    found = describe(place_new, plan, written, table, genes=bank.genes, queries=queries)
    change = {"change": "removed", "rows": int((~stays).sum()), "patients": len(set(patients))}
    return _after(description, found, change)


def _open(place: StoragePath, description: Mapping[str, Any]) -> ReferenceIndex:
    if description.get("version") != VERSION:
        msg = f"{place} holds a bank of version {description.get('version')}, which is read but not changed: "
        raise ArtifactError(msg + "run `raystp index` again with this version")
    return open_reference_index(place, description)


def _apart(old: StoragePath, new: StoragePath) -> None:
    if old == new:
        msg = f"a bank is changed into another folder than its own, {old} was given for both"
        raise ModelError(msg)


def _renewed(
    bank: ReferenceIndex, plan: IndexPlan, patients: set[str], place_new: StoragePath, *, stays: Bool[np.ndarray, "row"]
) -> tuple[IndexPlan, bool]:
    """Return the plan, and whether its quantizer was trained anew because it saw the patients."""
    if plan.kind not in LISTED or plan.quantizer is None or not patients & set(plan.quantizer["saw"]["patients"]):
        return plan, False
    left = np.flatnonzero(stays)
    drawn = left[sample_rows(len(left), plan.want)]
    whose = bank.rows["patient"].take(pa.array(drawn)).to_pylist()
    count = min(plan.lists, max(1, len(drawn)))
    return trained(place_new, replace(plan, quantizer=None), _vectors(bank, drawn), whose, count=count), True


def _shared(
    old: StoragePath,
    new: StoragePath,
    described: Mapping[str, Any],
    shard: IndexShard,
    *,
    plan: IndexPlan,
    renewed: bool,
) -> dict[str, Any]:
    """Let a shard that loses nothing stand in the new folder; with a new quantizer, its lists are filled anew."""
    kept = {name: value for name, value in described.items() if not (renewed and name == "index")}
    for name in files.names_of(kept):
        files.reuse(old, new, name)
    return {**kept, "index": write_shard_index(new, _number(described), shard.vectors, plan)} if renewed else kept


def _without(
    new: StoragePath,
    described: Mapping[str, Any],
    shard: IndexShard,
    stays: Bool[np.ndarray, "row"],
    *,
    plan: IndexPlan,
) -> dict[str, Any]:
    """Write a shard anew, with the rows that stay."""
    rows, number = np.flatnonzero(stays), _number(described)
    vectors = np.ascontiguousarray(shard.vectors[rows])
    return {
        "rows": len(rows),
        "vectors": files.write_array(new, f"{stem_of(number)}.vectors.npy", vectors),
        "index": write_shard_index(new, number, vectors, plan),
        "expression": write_expression(new, stem_of(number), shard.expression, plan.want.form, rows=rows),
    }


def _vectors(bank: ReferenceIndex, rows: Int64[np.ndarray, "row"]) -> Float32[np.ndarray, "row joint"]:
    """Return the prepared vectors of rising rows."""
    parts = [one.vectors[rows[(rows >= one.first) & (rows < one.end)] - one.first] for one in bank.shards]
    found: np.ndarray = np.concatenate(parts)
    return found


def _number(described: Mapping[str, Any]) -> int:
    """Return the number in the names of a shard's files, which it keeps when shards before it go."""
    return int(described["vectors"]["file"].removeprefix("shard-").partition(".")[0])


def _after(old: Mapping[str, Any], new: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return the new description with what became of the old one, which is named by its digest."""
    return {**new, "lineage": [*old["lineage"], {**change, "of": artifacts.digest_of(old)}]}
