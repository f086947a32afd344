"""Calibration queries of an index: tiles of its sections, stored beside it, on which recall and distances are measured.

An average over neighbours exists for every tile, also for one unlike anything in the index. The distance to the nearest
row shows this: it is compared with quantiles of the distances of calibration queries, searched without the rows of
their own patient. Queries are measured again after each change of the index; a removed patient's queries are removed.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float32, Int64

from raystp import tables
from raystp.errors import ModelError
from raystp.index import files
from raystp.index.open import ReferenceIndex
from raystp.storage import StoragePath

QUERIES_FILE = "queries.parquet"
MAX_PER_SECTION = 512
"""Queries stored of a section."""
MAX_TOTAL = 8192
"""Queries stored of all sections, but at least `MIN_PER_SECTION` of each."""
MIN_PER_SECTION = 8
RECALL_QUERIES = 256
"""Queries on which recall is measured."""
QUANTILES = {"q50": 0.5, "q95": 0.95, "q99": 0.99}
"""Stored quantiles of distances."""


def evenly_spaced(rows: int, count: int = MAX_PER_SECTION) -> Int64[np.ndarray, "query"]:
    """Return at most `count` row numbers, rising, evenly spaced over all rows."""
    return np.linspace(0, rows - 1, min(count, rows)).astype(np.int64)


def queries_table(images: Float32[np.ndarray, "tile joint"], section: str, patient: str) -> pa.Table:
    """Return a section's embedded tiles as a table of queries."""
    columns = [[section] * len(images), [patient] * len(images), tables.vectors(images)]
    return tables.of_columns(columns, tables.queries(images.shape[1]))


def queries_per_section(sections: int) -> int:
    """Return the number of queries stored of each of `sections` sections."""
    return min(MAX_PER_SECTION, max(MIN_PER_SECTION, MAX_TOTAL // sections))


def limit_per_section(queries: pa.Table) -> pa.Table:
    """Return the queries, with at most `queries_per_section` of each section."""
    rows: dict[str, list[int]] = {}
    for row, section in enumerate(queries["section"].to_pylist()):
        rows.setdefault(section, []).append(row)
    limit = queries_per_section(len(rows))
    kept = [np.asarray(own)[evenly_spaced(len(own), limit)] for own in rows.values()]
    return queries.take(pa.array(np.concatenate(kept)))


def recall_queries(queries: pa.Table, seed: int) -> Float32[np.ndarray, "query joint"]:
    """Return the vectors on which recall is measured: a fixed random sample."""
    chosen = np.random.default_rng(seed).permutation(queries.num_rows)[:RECALL_QUERIES]
    return tables.matrix(queries["vector"])[chosen]


def drop_patients(queries: pa.Table, patients: Collection[str]) -> pa.Table:
    """Return the queries of all other patients."""
    return queries.filter(pc.invert(pc.is_in(queries["patient"], value_set=tables.strings(sorted(patients)))))


def read_queries(folder: StoragePath, notes: Mapping[str, Any]) -> pa.Table | None:
    """Read the queries of an index by the notes of its manifest; None for an index of a version without queries."""
    described = notes.get("queries")
    if described is None:
        return None
    file = folder / QUERIES_FILE
    files.check(folder, described)
    tables.check(file.read_schema(), tables.queries(notes["bank"]["joint"]), str(file))
    return file.read_table()


def write_queries(folder: StoragePath, index: ReferenceIndex, queries: pa.Table) -> dict[str, object]:
    """Write the queries beside the index; return the manifest's notes: the file, and the quantiles of distances."""
    described = files.write(folder, QUERIES_FILE, lambda path: StoragePath.of(path).write_table(queries))
    return {"queries": described, "distance": calibrate_on(index, queries)}


def calibrate_on(index: ReferenceIndex, queries: pa.Table) -> dict[str, object]:
    """Return quantiles of the queries' distances from the index without the rows of their own patient.

    With one patient, without those of their own section; with one section, from the whole index. The result names it.
    """
    column = "patient" if len(index.rows["patient"].unique()) > 1 else "section"
    single = len(index.rows[column].unique()) == 1
    owners, vectors = queries[column].to_pylist(), tables.matrix(queries["vector"])
    distances = []
    for owner in dict.fromkeys(owners):
        allowed = None if single else index.rows_where(column, [owner], drop=True)
        scores, _ = index.search(vectors[[name == owner for name in owners]], 1, allowed=allowed)
        distances.append(index.nearest_distance(scores[:, 0]))
    values = np.concatenate(distances)
    return {**calibrate(values), "without": "nothing" if single else f"the tile's own {column}", "tiles": len(values)}


def calibrate(distances: Float32[np.ndarray, "query"]) -> dict[str, float]:
    """Return the quantiles with which other distances are compared; raise ModelError where there are no distances."""
    if not len(distances):
        msg = "no distances to calibrate on: search tiles of the reference without the rows of their own patient"
        raise ModelError(msg)
    return {name: float(np.quantile(distances, share)) for name, share in QUANTILES.items()}


def is_far(
    distances: Float32[np.ndarray, "query"], quantiles: Mapping[str, float], beyond: str = "q99"
) -> Bool[np.ndarray, "query"]:
    """Return which queries are farther from the index than that quantile of the calibration queries."""
    far: np.ndarray = distances > quantiles[beyond]
    return far
