"""An open reference index, or some shards of one, and the search over them.

Row ids count over all shards of the index, whichever are open. `search` finds what the index's kind finds;
`search_exactly` compares every row. An index with all its shards open always returns k rows: a query for which the
approximate search finds fewer is searched exactly. With some shards open, missing neighbours have row -1, and the
caller that merges the parts searches those queries again.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float32, Float64, Int64

from raystp.errors import ArtifactError, ModelError
from raystp.index import files
from raystp.index.all_rows import RowSums, RowWeighting, WeighedRows, mean_and_variance, merge_sums, sum_rows
from raystp.index.description import VERSION, VERSION_WITH_UNMEASURED, IndexDescription
from raystp.index.expression.indexed import IndexedExpression, rows_in
from raystp.index.expression.measured import MeasuredGenes
from raystp.index.reference import read_rows
from raystp.index.search import exact, faiss_gpu, faiss_lists, over_shards, score
from raystp.index.search.kinds import LISTED, Kind, SearchParams
from raystp.index.search.merge import PartResult, SearchResult, best_of, incomplete, merge_top_k, part_of
from raystp.index.search.score import Distance, Metric
from raystp.index.shard import IndexShard, open_shard, shard_on_gpu
from raystp.storage import StoragePath

_FEW_ALLOWED = 0.1
"""Share of allowed rows below which a graph is not searched: most rows that it visits would not be allowed."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ReferenceIndex(IndexedExpression):
    """An open index, or some shards of one."""

    metric: Metric
    kind: Kind
    joint: int
    """Dimensions of the vectors."""
    params: SearchParams
    centroids: Float32[np.ndarray, "list joint"] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all shards are open."""
        return bool(sum(len(shard.vectors) for shard in self.shards) == self.rows.num_rows)

    def search(
        self,
        queries: Float32[np.ndarray, "query joint"],
        k: int,
        *,
        allowed: Bool[np.ndarray, "row"] | None = None,
        params: SearchParams | None = None,
    ) -> SearchResult:
        """Return scores and rows of the k nearest rows that the index's kind finds, by (-score, row).

        `allowed` is a mask over all rows of the index; `params` defaults to the index's own.

        Raises:
            ModelError: k exceeds the (allowed) rows, dimensions differ, or a query is zero or not finite.
        """
        part = self.search_part(queries, k, allowed=allowed, params=params)
        scores, rows = best_of(part.scores, part.rows, k)
        short = incomplete(rows)
        if self.is_whole and short.any():
            scores[short], rows[short] = self.search_exactly(queries[short], k, allowed=allowed)
        return scores, rows

    def search_part(
        self,
        queries: Float32[np.ndarray, "query joint"],
        k: int,
        *,
        allowed: Bool[np.ndarray, "row"] | None = None,
        params: SearchParams | None = None,
    ) -> PartResult:
        """Return the candidates of the open shards, which `merge_parts` merges with those of the others.

        Raises as `search` does.
        """
        prepared, params = self._prepare(queries, k, allowed), params or self.params
        masks = [_part(allowed, shard) for shard in self.shards]
        if self._compares_every_row(allowed):
            return part_of(self._search_exactly(prepared, k, allowed))
        if self.kind == "hnsw":
            found = zip(self.shards, masks, strict=True)
            parts = [shard.search(prepared, k, params=params, allowed=mask) for shard, mask in found]
            return part_of(merge_top_k(parts, k))
        probes = None
        if self.centroids is not None:
            probes = exact.top_k(self.centroids, prepared, min(params.nprobe, len(self.centroids)), metric=self.metric)
        job = over_shards.ListSearch(self.shards, self.kind, self.metric, params, masks)
        return over_shards.search(job, prepared, k, probes)

    def candidates_wanted(self, k: int, params: SearchParams | None = None) -> int:
        """Return how many candidates of the whole index `merge_parts` chooses, by their approximate scores."""
        return over_shards.candidates_wanted(self.kind, k, params or self.params)

    def search_exactly(
        self, queries: Float32[np.ndarray, "query joint"], k: int, *, allowed: Bool[np.ndarray, "row"] | None = None
    ) -> SearchResult:
        """Return the k nearest rows of the open shards, whatever the kind; raise as `search` does."""
        return self._search_exactly(self._prepare(queries, k, allowed), k, allowed)

    def nearest_distance(self, best: Float32[np.ndarray, "query"]) -> Float32[np.ndarray, "query"]:
        """Return the distance of each query's nearest row by its score: 1 - cosine, or Euclidean (scores are -d^2)."""
        distance: np.ndarray = 1 - best if self.metric == "cosine" else np.sqrt(np.maximum(-best, 0))
        return np.asarray(np.maximum(distance, 0), np.float32)

    def rows_where(self, column: str, values: Iterable[str], *, drop: bool = False) -> Bool[np.ndarray, "row"]:
        """Return the mask for `search` that keeps the rows whose `column` is among the values, or drops them.

        Raises ModelError for a text column that the index lacks.
        """
        columns = [field.name for field in self.rows.schema if pa.types.is_string(field.type)]
        if column not in columns:
            msg = f"the index has no text column '{column}' to select rows by; it has {', '.join(columns)}"
            raise ModelError(msg)
        chosen = pc.is_in(self.rows[column], value_set=pa.array(sorted(set(values)), pa.string()))
        mask: np.ndarray = chosen.to_numpy().astype(bool)
        return ~mask if drop else mask

    def rows_without(self, patients: Iterable[str]) -> Bool[np.ndarray, "row"]:
        """Return the mask for `search` that drops these patients' rows."""
        return self.rows_where("patient", patients, drop=True)

    def mean_of_all_rows(
        self,
        queries: Float32[np.ndarray, "query joint"],
        weighting: RowWeighting,
        *,
        allowed: Bool[np.ndarray, "row"] | None = None,
        genes: Int64[np.ndarray, "gene"] | None = None,
    ) -> tuple[Float32[np.ndarray, "query gene"], Float32[np.ndarray, "query gene"] | None]:
        """Return each query's weighted mean over all (allowed) rows, and the variance if the weighting sums squares.

        Every row is read, whatever the kind. A row that has not measured a gene has no vote for it; where no row has,
        the mean is NaN. All shards must be open. Raises ModelError as `search` does.
        """
        sums = self.sums_of_all_rows(queries, weighting, allowed=allowed, genes=genes)
        return mean_and_variance(sums, self.measured, genes)

    def sums_of_all_rows(
        self,
        queries: Float32[np.ndarray, "query joint"],
        weighting: RowWeighting,
        *,
        allowed: Bool[np.ndarray, "row"] | None = None,
        genes: Int64[np.ndarray, "gene"] | None = None,
    ) -> RowSums:
        """Return the sums over the rows of the open shards, which `all_rows.merge_sums` merges with those of others."""
        prepared, own = self._prepare(queries, 1, allowed), score.lengths(queries)
        lengths = self._lengths() if self.metric == "cosine" else None
        parts = []
        for shard in self.shards:
            mine = slice(shard.first, shard.end)
            rows = WeighedRows(
                metric=self.metric,
                vectors=shard.vectors,
                lengths=None if lengths is None else lengths[mine],
                expression=shard.expression,
                pattern=None if self.measured is None else self.measured.of_row[mine],
                patterns=1 if self.measured is None else len(self.measured.patterns),
            )
            parts.append(sum_rows(rows, prepared, own, weighting, allowed=_part(allowed, shard), genes=genes))
        return merge_sums(parts)

    def squared_distances(
        self,
        queries: Float32[np.ndarray, "query joint"],
        rows: Int64[np.ndarray, "query k"],
        *,
        distance: Distance = "l2",
    ) -> Float32[np.ndarray, "query k"]:
        """Return d^2 between each query and its rows as the model gave them, not normalised (for weights).

        `l1` squares the sum of absolute differences. A cosine index stores unit vectors and lengths; their product is
        the row within float32 rounding. Rows of shards that are not open give 0, so that the results of the parts of an
        index add up.
        """
        self.check_rows(rows)
        score.check_dimensions(self.joint, queries.shape[1])
        query, flat = np.repeat(np.arange(len(rows)), rows.shape[1]), rows.ravel()
        length = self._lengths() if self.metric == "cosine" else np.ones(self.rows.num_rows)
        distances = np.zeros(len(flat), np.float32)
        for shard in self.shards:
            here = np.flatnonzero(rows_in(flat, shard))
            for part in np.array_split(here, len(here) // 512 + 1):
                vectors = shard.vectors[flat[part] - shard.first] * length[flat[part], None]
                distances[part] = score.squared_distances(queries[query[part]], vectors, distance)
        return distances.reshape(rows.shape)

    def _prepare(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> Float32[np.ndarray, "query joint"]:
        score.check_k(k, score.count_allowed(allowed, self.rows.num_rows), "the index")
        score.check_dimensions(self.joint, queries.shape[1])
        return score.prepare(queries, self.metric, "query")

    def _compares_every_row(self, allowed: np.ndarray | None) -> bool:
        on_gpu = any(shard.on_gpu for shard in self.shards)
        if self.kind == "exact" or (on_gpu and allowed is not None):
            return not on_gpu or allowed is not None  # a GPU finds the candidates, but only among all rows
        return self.kind == "hnsw" and allowed is not None and bool(allowed.mean() < _FEW_ALLOWED)

    def _search_exactly(self, prepared: np.ndarray, k: int, allowed: np.ndarray | None) -> SearchResult:
        parts = [shard.search_exactly(prepared, k, allowed=_part(allowed, shard)) for shard in self.shards]
        return parts[0] if len(parts) == 1 else merge_top_k(parts, k)

    def _lengths(self) -> Float64[np.ndarray, "row"]:
        lengths: np.ndarray = self.rows["length"].to_numpy()
        return lengths


def open_reference_index(
    folder: StoragePath,
    description: IndexDescription,
    *,
    only: Collection[int] | None = None,
    device: faiss_gpu.Device = "cpu",
) -> ReferenceIndex:
    """Open the index in a folder by its description, or `only` some of its shards, after checking each file's sha256.

    With no shard open, genes and rows are still known. Vectors and expression are mapped, not read, so an index may be
    larger than memory, and processes share pages.

    Raises:
        ArtifactError: another version, or a file that is damaged or altered; the message names it.
        ModelError: a shard that the index does not have, or no GPU where one is required.
    """
    version = description.get("version")
    if version not in {1, VERSION, VERSION_WITH_UNMEASURED}:
        msg = f"{folder} has an index of version {version}; this raystp reads versions 1 to {VERSION_WITH_UNMEASURED}: "
        raise ArtifactError(msg + "run `raystp index` again with this version")
    count = len(description["shards"])
    numbers = sorted(set(range(count) if only is None else only))
    if numbers and not 0 <= numbers[0] <= numbers[-1] < count:
        msg = f"shards {numbers} requested; the index has shards 0 to {count - 1}"
        raise ModelError(msg)
    kind: Kind = description.get("kind", "exact")
    quantizer = description["quantizer"] if kind in LISTED else None
    trained = None if quantizer is None else files.read_index(folder, quantizer)
    shards = [open_shard(folder, description, number, trained) for number in numbers]
    if faiss_gpu.use_gpu(device, kind):
        shards = [shard_on_gpu(shard) for shard in shards]
    rows = read_rows(folder, description["rows"], sum(shard["rows"] for shard in description["shards"]))
    unmeasured = description.get("unmeasured", {})
    sections = rows["section"].to_pylist() if unmeasured else []
    return ReferenceIndex(
        metric=description["metric"],
        kind=kind,
        genes=list(description["genes"]),
        joint=description["joint"],
        shards=shards,
        rows=rows,
        params=SearchParams(**description.get("effort", {})),
        centroids=None if trained is None else faiss_lists.centroids_of(trained),
        measured=MeasuredGenes.of_sections(sections, unmeasured, len(description["genes"])),
    )


def _part(allowed: np.ndarray | None, shard: IndexShard) -> np.ndarray | None:
    return None if allowed is None else allowed[shard.first : shard.end]
