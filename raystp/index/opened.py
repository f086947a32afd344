"""An opened bank, whole or in part, and the search over what is held of it.

Row ids count over all shards of the bank, whichever of them are held. `search` finds what the bank's kind finds;
`search_exactly` is the truth. A bank that holds all its shards never answers short: a query for which an approximate
search found fewer than k rows is answered exactly. A part leaves places absent, and whoever merges parts asks again.
"""

import functools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float32, Float64, Int64

from raystp.errors import ArtifactError, ModelError
from raystp.index import files
from raystp.index import shard as shards_of
from raystp.index.reference import open_rows
from raystp.index.search import exact, score
from raystp.index.search import faiss_gpu as gpu
from raystp.index.search import faiss_lists as lists
from raystp.index.search.kinds import LISTED, Kind, SearchParams
from raystp.index.search.merge import Answer, merge_top_k, short_of
from raystp.index.search.score import Metric
from raystp.index.shard import IndexShard
from raystp.storage import StoragePath

VERSION = 2
"""Of the description and of the files that it names; banks of version 1 are read too."""

_FEW = 0.1
"""Share of allowed rows below which a graph is not walked: most of what it passes would not be allowed."""


@dataclass(frozen=True, eq=False)
class ReferenceIndex:
    """An opened index, or some shards of one."""

    metric: Metric
    kind: Kind
    genes: list[str]
    joint: int
    shards: list[IndexShard]
    """Those that are held, in their order."""
    rows: pa.Table
    """Where each row of the whole bank came from (`raystp.index.reference.ROWS`), in order."""
    effort: SearchParams
    centroids: Float32[np.ndarray, "list joint"] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all shards are held."""
        return bool(sum(len(shard.vectors) for shard in self.shards) == self.rows.num_rows)

    def search(
        self,
        queries: Float32[np.ndarray, "query joint"],
        k: int,
        *,
        allowed: Bool[np.ndarray, "row"] | None = None,
        effort: SearchParams | None = None,
    ) -> Answer:
        """Return scores and rows of the k nearest rows that the bank's kind finds, by (-score, row).

        `allowed` is a mask over all rows of the bank; `effort` is the bank's own where none is given.

        Raises:
            ModelError: k exceeds the (allowed) rows, dimensions differ, or a query is zero or not finite.
        """
        prepared = self._prepared(queries, k, allowed)
        effort = effort or self.effort
        if self._exactly(allowed):
            return self._merged(prepared, k, allowed)
        probes = None
        if self.centroids is not None:
            probes = exact.top_k(self.centroids, prepared, min(effort.nprobe, len(self.centroids)), metric=self.metric)
        own = [(shard, _of(allowed, shard)) for shard in self.shards]
        parts = [one.search(prepared, k, effort=effort, probes=probes, allowed=mask) for one, mask in own]
        scores, rows = merge_top_k(parts, k)
        short = short_of(rows)
        if self.is_whole and short.any():
            scores[short], rows[short] = self._merged(prepared[short], k, allowed)
        return scores, rows

    def search_exactly(
        self, queries: Float32[np.ndarray, "query joint"], k: int, *, allowed: Bool[np.ndarray, "row"] | None = None
    ) -> Answer:
        """Return the k nearest of the rows held, whatever the kind: the truth. Raises as `search` does."""
        return self._merged(self._prepared(queries, k, allowed), k, allowed)

    def rows_where(self, column: str, values: Iterable[str], *, drop: bool = False) -> Bool[np.ndarray, "row"]:
        """Return the mask for `search` that keeps the rows whose `column` is among the values, or drops them.

        Raises ModelError for a column of text that the bank's rows do not have.
        """
        texts = [field.name for field in self.rows.schema if pa.types.is_string(field.type)]
        if column not in texts:
            msg = f"rows cannot be chosen by '{column}': this bank's rows have {', '.join(texts)}"
            raise ModelError(msg)
        chosen = pc.is_in(self.rows[column], value_set=pa.array(sorted(set(values)), pa.string()))
        mask: np.ndarray = chosen.to_numpy().astype(bool)
        return ~mask if drop else mask

    def rows_without(self, patients: Iterable[str]) -> Bool[np.ndarray, "row"]:
        """Return the mask for `search` that leaves these patients' rows out."""
        return self.rows_where("patient", patients, drop=True)

    def weighted_sum(
        self,
        weights: Float32[np.ndarray, "query k"],
        rows: Int64[np.ndarray, "query k"],
        genes: Int64[np.ndarray, "gene"] | None = None,
    ) -> Float32[np.ndarray, "query gene"]:
        """Return each query's weighted sum of its rows' expression, of these genes or all: the shards' shares added.

        Rows of shards that are not held count nothing. Raises ModelError for a row that the bank does not have.
        """
        self._check_rows(rows)
        shares = (one.expression.share_of_sum(weights, rows, one.first, genes=genes) for one in self.shards)
        return functools.reduce(_added, shares)

    def weighted_spread(
        self,
        weights: Float32[np.ndarray, "query k"],
        rows: Int64[np.ndarray, "query k"],
        mean: Float32[np.ndarray, "query gene"],
        genes: Int64[np.ndarray, "gene"] | None = None,
    ) -> Float32[np.ndarray, "query gene"]:
        """Return the sum of weight x (row - mean)^2, added up as `weighted_sum` is."""
        self._check_rows(rows)
        shares = (one.expression.share_of_spread(weights, rows, mean, one.first, genes=genes) for one in self.shards)
        return functools.reduce(_added, shares)

    def expression(self, rows: Int64[np.ndarray, "row"]) -> Float32[np.ndarray, "row gene"]:
        """Return a copy of these rows' expression, in the order asked for (distinct rows keep it small)."""
        self._check_rows(rows, held=True)
        taken = np.empty((len(rows), len(self.genes)), np.float32)
        for shard in self.shards:
            here = _inside(rows, shard)
            taken[here] = shard.expression.rows(rows[here] - shard.first)
        return taken

    def squared_distances(
        self, queries: Float32[np.ndarray, "query joint"], rows: Int64[np.ndarray, "query k"]
    ) -> Float32[np.ndarray, "query k"]:
        """Return d^2 between each query and its rows as the model gave them, not normalised (what BLEEP weighs by).

        A cosine bank keeps unit vectors and lengths; their product is the row within float32's rounding. Rows of shards
        that are not held give 0, so that the parts of a bank add up.
        """
        self._check_rows(rows)
        score.check_joint(self.joint, queries.shape[1])
        query, flat = np.repeat(np.arange(len(rows)), rows.shape[1]), rows.ravel()
        length = self._lengths() if self.metric == "cosine" else np.ones(self.rows.num_rows)
        distances = np.zeros(len(flat), np.float32)
        for shard in self.shards:
            here = np.flatnonzero(_inside(flat, shard))
            for part in np.array_split(here, len(here) // 512 + 1):
                vectors = shard.vectors[flat[part] - shard.first] * length[flat[part], None]
                distances[part] = np.square(queries[query[part]] - vectors).sum(axis=1)
        return distances.reshape(rows.shape)

    def _prepared(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> Float32[np.ndarray, "query joint"]:
        score.check_k(k, score.count_allowed(allowed, self.rows.num_rows), "a bank")
        score.check_joint(self.joint, queries.shape[1])
        return score.prepare(queries, self.metric, "query")

    def _exactly(self, allowed: np.ndarray | None) -> bool:
        if self.kind == "exact":
            return all(shard.index is None for shard in self.shards)  # else a GPU finds the candidates
        return self.kind == "hnsw" and allowed is not None and bool(allowed.mean() < _FEW)

    def _merged(self, prepared: np.ndarray, k: int, allowed: np.ndarray | None) -> Answer:
        return merge_top_k([one.search_exactly(prepared, k, allowed=_of(allowed, one)) for one in self.shards], k)

    def _lengths(self) -> Float64[np.ndarray, "row"]:
        found: np.ndarray = self.rows["length"].to_numpy()
        return found

    def _check_rows(self, rows: np.ndarray, *, held: bool = False) -> None:
        if not rows.size:
            return
        if not 0 <= rows.min() <= rows.max() < self.rows.num_rows:
            msg = f"rows {rows.min()} to {rows.max()} were asked of a bank whose rows are 0 to {self.rows.num_rows - 1}"
            raise ModelError(msg)
        if held and not np.logical_or.reduce([_inside(rows, shard) for shard in self.shards]).all():
            msg = f"some of the rows {rows.min()} to {rows.max()} are in shards that are not held here"
            raise ModelError(msg)


def open_reference_index(
    place: StoragePath,
    description: Mapping[str, Any],
    *,
    only: Collection[int] | None = None,
    device: gpu.Device = "cpu",
) -> ReferenceIndex:
    """Open the bank in a folder by its description, or `only` some of its shards, each file after checking its sha256.

    With no shard at all it still knows its genes and where its rows came from.

    Vectors and expression stay on disk and are mapped, so a bank larger than memory opens, and processes share pages.

    Raises:
        ArtifactError: another version, or a file that is damaged or altered; the message names it.
        ModelError: a shard that the bank does not have, or a GPU that is not there.
    """
    version = description.get("version")
    if version not in {1, VERSION}:
        msg = f"{place} holds a bank of version {version}, this raystp reads versions 1 and {VERSION}: "
        raise ArtifactError(msg + "run `raystp index` again with this version")
    count = len(description["shards"])
    numbers = sorted(set(range(count) if only is None else only))
    if numbers and not 0 <= numbers[0] <= numbers[-1] < count:
        msg = f"shards {numbers} were asked of a bank whose shards are 0 to {count - 1}"
        raise ModelError(msg)
    kind: Kind = description.get("kind", "exact")
    trained = files.read_index(place, description["quantizer"]) if kind in LISTED else None
    held = [shards_of.open_shard(place, description, number, trained) for number in numbers]
    if gpu.wanted(device, kind):
        held = [shards_of.on_gpu(shard) for shard in held]
    return ReferenceIndex(
        metric=description["metric"],
        kind=kind,
        genes=list(description["genes"]),
        joint=description["joint"],
        shards=held,
        rows=open_rows(place, description["rows"], sum(one["rows"] for one in description["shards"])),
        effort=SearchParams(**description.get("effort", {})),
        centroids=None if trained is None else lists.centroids_of(trained),
    )


def _of(allowed: np.ndarray | None, shard: IndexShard) -> Any:
    return None if allowed is None else allowed[shard.first : shard.end]


def _inside(rows: np.ndarray, shard: IndexShard) -> np.ndarray:
    return (rows >= shard.first) & (rows < shard.end)


def _added(total: np.ndarray, share: np.ndarray) -> np.ndarray:
    total += share
    return total
