"""What an index folder holds, and the search over all of it in one process.

    shard-00000.faiss            prepared vectors of a range of rows (unit length for cosine)
    shard-00000.expression.npy   their expression, float32, rows in the same order
    rows.parquet                 where each row came from, and its vector's length before it was prepared

The description that `write_bank` returns (plain JSON values) names the genes, the metric, and each file's sha256; it
belongs into the artifact's manifest, and nothing is opened whose sha256 differs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float32, Float64, Int64

from raystp import artifacts, tables
from raystp.errors import ArtifactError, ModelError
from raystp.index import exact, score
from raystp.index.cut import cut
from raystp.index.expression import open_expression, share_of_sum, write_expression
from raystp.index.merge import merge_top_k
from raystp.index.reference import ROWS, ROWS_FILE, Reference
from raystp.index.score import METRICS, Metric
from raystp.index.shard import build_shard, metric_of, open_shard, search_shard, vectors_of, write_shard
from raystp.storage import Place

VERSION = 1
"""Of the description and of the files that it names."""


@dataclass(frozen=True)
class Shard:
    """A range of the bank's rows: rows `first` and on, their vectors and their expression."""

    first: int
    index: faiss.IndexFlat
    expression: Float32[np.ndarray, "row gene"]


@dataclass(frozen=True)
class Bank:
    """An opened index: row ids count over all shards."""

    metric: Metric
    genes: list[str]
    shards: list[Shard]
    rows: pa.Table
    """Columns of `ROWS`, one line per row of the bank, in order."""

    def search(
        self, queries: Float32[np.ndarray, "query joint"], k: int, *, allowed: Bool[np.ndarray, "row"] | None = None
    ) -> tuple[Float32[np.ndarray, "query k"], Int64[np.ndarray, "query k"]]:
        """Return what `exact.search` over all rows returns, bit for bit, from the shards' merged answers.

        Raises:
            ModelError: k exceeds the (allowed) rows, dimensions differ, or a query is zero or not finite.
        """
        score.check_k(k, score.count_allowed(allowed, self.rows.num_rows), "a bank")
        parts = []
        for shard in self.shards:
            own = None if allowed is None else allowed[shard.first : shard.first + shard.index.ntotal]
            parts.append(search_shard(shard.index, queries, k, shard.first, allowed=own))
        return merge_top_k(parts, k)

    def search_exactly(
        self, queries: Float32[np.ndarray, "query joint"], k: int
    ) -> tuple[Float32[np.ndarray, "query k"], Int64[np.ndarray, "query k"]]:
        """Return what `search` returns, without FAISS: the truth, for a check or a small bank. Raises as it does."""
        score.check_k(k, self.rows.num_rows, "a bank")
        score.check_joint(self.shards[0].index.d, queries.shape[1])
        prepared = score.prepare(queries, self.metric, "query")
        parts = []
        for shard in self.shards:
            scores, rows = exact.top_k(vectors_of(shard.index), prepared, k, metric=self.metric)
            parts.append((scores, np.where(rows < 0, rows, rows + shard.first)))
        return merge_top_k(parts, k)

    def rows_without(self, patients: Iterable[str]) -> Bool[np.ndarray, "row"]:
        """Return the mask for `search` that leaves these patients' rows out."""
        theirs = pc.is_in(self.rows["patient"], value_set=pa.array(sorted(set(patients)), pa.string()))
        mask: np.ndarray = ~theirs.to_numpy().astype(bool)
        return mask

    def weighted_sum(
        self, weights: Float32[np.ndarray, "query k"], rows: Int64[np.ndarray, "query k"]
    ) -> Float32[np.ndarray, "query gene"]:
        """Return each query's weighted sum of its rows' expression, each shard's share added up.

        Raises ModelError for a row that the bank does not have.
        """
        self._check_rows(rows)
        total = np.zeros((len(rows), len(self.genes)), np.float32)
        for shard in self.shards:
            total += share_of_sum(weights, rows, shard.expression, shard.first)
        return total

    def expression(self, rows: Int64[np.ndarray, "row"]) -> Float32[np.ndarray, "row gene"]:
        """Return a copy of these rows' expression, in the order asked for (distinct rows keep it small)."""
        self._check_rows(rows)
        taken = np.empty((len(rows), len(self.genes)), np.float32)
        for shard in self.shards:
            here = _inside(rows, shard)
            taken[here] = shard.expression[rows[here] - shard.first]
        return taken

    def squared_distances(
        self, queries: Float32[np.ndarray, "query joint"], rows: Int64[np.ndarray, "query k"]
    ) -> Float32[np.ndarray, "query k"]:
        """Return d^2 between each query and its rows as the model gave them, not normalised (what BLEEP weighs by).

        A cosine bank keeps unit vectors and lengths; their product is the row within float32's rounding.
        """
        self._check_rows(rows)
        score.check_joint(self.shards[0].index.d, queries.shape[1])
        query, flat = np.repeat(np.arange(len(rows)), rows.shape[1]), rows.ravel()
        length = self._lengths() if self.metric == "cosine" else np.ones(self.rows.num_rows)
        distances = np.empty(len(flat), np.float32)
        for shard in self.shards:
            here = np.flatnonzero(_inside(flat, shard))
            for part in np.array_split(here, len(here) // 512 + 1):
                vectors = vectors_of(shard.index)[flat[part] - shard.first] * length[flat[part], None]
                distances[part] = np.square(queries[query[part]] - vectors).sum(axis=1)
        return distances.reshape(rows.shape)

    def _lengths(self) -> Float64[np.ndarray, "row"]:
        found: np.ndarray = self.rows["length"].to_numpy()
        return found

    def _check_rows(self, rows: np.ndarray) -> None:
        if rows.size and not 0 <= rows.min() <= rows.max() < self.rows.num_rows:
            msg = f"rows {rows.min()} to {rows.max()} were asked of a bank whose rows are 0 to {self.rows.num_rows - 1}"
            raise ModelError(msg)


def write_bank(place: Place, reference: Reference, *, shards: int, metric: Metric) -> dict[str, Any]:
    """Write a bank's files into a folder and return its description, without which they cannot be opened.

    Raises:
        ModelError: more shards than rows, an unknown metric, or a value that is not finite.
    """
    if metric not in METRICS:
        msg = f"there is no metric '{metric}': {' and '.join(METRICS)} are there"
        raise ModelError(msg)
    cuts = cut(len(reference.vectors), shards)
    described = []
    for number, bounds in enumerate(cuts):
        index = build_shard(reference.vectors[slice(*bounds)], metric=metric)
        described.append(_write_shard(place, number, index, reference.expression[slice(*bounds)]))
    (place / ROWS_FILE).write_table(reference.rows())
    return {
        "version": VERSION,
        "metric": metric,
        "joint": reference.vectors.shape[1],
        "genes": list(reference.genes),
        "shards": described,
        "rows": {"file": ROWS_FILE, "sha256": artifacts.digest(place / ROWS_FILE)},
        "patients": sorted(set(reference.patients)),
        "sections": sorted(set(reference.sections)),
    }


def open_bank(place: Place, description: Mapping[str, Any]) -> Bank:
    """Open the bank in a folder by its description, each file after checking its sha256.

    Expression stays on disk and is mapped, so a bank larger than memory opens; vectors are read.

    Raises:
        ArtifactError: another version, or a file that is damaged or altered; the message names it.
    """
    if description.get("version") != VERSION:
        msg = f"{place} holds a bank of version {description.get('version')}, this raystp reads version {VERSION}: "
        raise ArtifactError(msg + "run `raystp index` again with this version")
    shards, first = [], 0
    for described in description["shards"]:
        vectors, expression = described["vectors"], described["expression"]
        index = open_shard(place / vectors["file"], vectors["sha256"])
        values = open_expression(place / expression["file"], expression["sha256"])
        seen = (metric_of(index), index.ntotal, index.d, *values.shape)
        wanted = (
            description["metric"],
            described["rows"],
            description["joint"],
            described["rows"],
            len(description["genes"]),
        )
        if seen != wanted:
            msg = f"{place / vectors['file']} and its expression are {seen}, {wanted} was described"
            raise ArtifactError(msg)
        shards.append(Shard(first, index, values))
        first += described["rows"]
    return Bank(description["metric"], list(description["genes"]), shards, _open_rows(place, description, first))


def _write_shard(
    place: Place, number: int, index: faiss.IndexFlat, expression: Float32[np.ndarray, "row gene"]
) -> dict[str, Any]:
    vectors, values = f"shard-{number:05d}.faiss", f"shard-{number:05d}.expression.npy"
    return {
        "rows": index.ntotal,
        "vectors": {"file": vectors, "sha256": write_shard(place / vectors, index)},
        "expression": {"file": values, "sha256": write_expression(place / values, expression)},
    }


def _open_rows(place: Place, description: Mapping[str, Any], wanted: int) -> pa.Table:
    file = place / description["rows"]["file"]
    if artifacts.digest(file) != description["rows"]["sha256"]:
        msg = f"{file} is not the file that its index was written with; it is damaged or altered: run `raystp index`"
        raise ArtifactError(msg + " again")
    tables.check(file.read_schema(), ROWS, str(file))
    rows = file.read_table()
    if rows.num_rows != wanted:
        msg = f"{file} names {rows.num_rows} rows, the shards hold {wanted}: run `raystp index` again"
        raise ArtifactError(msg)
    return rows


def _inside(rows: np.ndarray, shard: Shard) -> np.ndarray:
    return (rows >= shard.first) & (rows < shard.first + shard.index.ntotal)
