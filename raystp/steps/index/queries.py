"""A bank's own kind of queries: tiles of its sections, kept beside it, that recall and distances are measured with.

They are measured again whenever the bank changes, and a patient who leaves takes theirs along.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32

from raystp import tables
from raystp.artifacts import Artifact
from raystp.impute.distance import calibrate, nearest_distance
from raystp.index import files
from raystp.index.opened import ReferenceIndex
from raystp.storage import StoragePath

FILE = "queries.parquet"

MOST = 512
"""Queries that are kept of a section."""

MOST_OF_ALL = 8192
"""Queries that are kept of all sections, at least `FEWEST` of each."""

FEWEST = 8

ASKED = 256
"""Queries that recall is measured with."""


def spread_over(rows: int, most: int = MOST) -> np.ndarray:
    """Return at most so many rows, rising, evenly over all."""
    return np.linspace(0, rows - 1, min(most, rows)).astype(int)


def table_of(images: Float32[np.ndarray, "tile joint"], section: str, patient: str) -> pa.Table:
    """Return a section's tiles as queries."""
    columns = [[section] * len(images), [patient] * len(images), tables.vectors(images)]
    return tables.of_columns(columns, tables.queries(images.shape[1]))


def share_of_each(sections: int) -> int:
    """Return how many queries of each of so many sections are kept."""
    return min(MOST, max(FEWEST, MOST_OF_ALL // sections))


def thinned(queries: pa.Table) -> pa.Table:
    """Return as many queries of each section as are kept of so many sections."""
    rows: dict[str, list[int]] = {}
    for row, section in enumerate(_names(queries["section"])):
        rows.setdefault(section, []).append(row)
    most = share_of_each(len(rows))
    kept = [np.asarray(own)[spread_over(len(own), most)] for own in rows.values()]
    return queries.take(pa.array(np.concatenate(kept)))


def asked(queries: pa.Table, seed: int) -> Float32[np.ndarray, "query joint"]:
    """Return those that recall is measured with."""
    chosen = np.random.default_rng(seed).permutation(queries.num_rows)[:ASKED]
    return tables.matrix(queries["vector"])[chosen]


def without(queries: pa.Table, patients: Collection[str]) -> pa.Table:
    """Return the queries of everybody else."""
    return queries.filter(pc.invert(pc.is_in(queries["patient"], value_set=tables.strings(sorted(patients)))))


def read(index: Artifact) -> pa.Table | None:
    """Return an index's queries; None for one of an earlier version, which kept none."""
    described = index.manifest.notes.get("queries")
    if described is None:
        return None
    file = index.path / FILE
    files.check(index.path, described)
    tables.check(file.read_schema(), tables.queries(index.manifest.notes["bank"]["joint"]), str(file))
    return file.read_table()


def measured(place: StoragePath, bank: ReferenceIndex, queries: pa.Table) -> Mapping[str, Any]:
    """Write the queries beside the bank, and return the notes about them: the file, and how far they lie."""
    described = files.write(place, FILE, lambda path: StoragePath.of(path).write_table(queries))
    return {"queries": described, "distance": distances(bank, queries)}


def distances(bank: ReferenceIndex, queries: pa.Table) -> dict[str, Any]:
    """Return quantiles of the distance from the reference's tiles to the bank without their own patient.

    With one patient, without their own section; with one section, to the whole bank, and the note says so.
    """
    by = "patient" if len(bank.rows["patient"].unique()) > 1 else "section"
    alone = len(bank.rows[by].unique()) == 1
    whose, vectors, found = _names(queries[by]), tables.matrix(queries["vector"]), []
    for one in dict.fromkeys(whose):
        allowed = None if alone else bank.rows_where(by, [one], drop=True)
        scores, _ = bank.search(vectors[[name == one for name in whose]], 1, allowed=allowed)
        found.append(nearest_distance(scores[:, 0], bank.metric))
    values = np.concatenate(found)
    return {**calibrate(values), "without": "nothing" if alone else f"the tile's own {by}", "tiles": len(values)}


def _names(column: pa.ChunkedArray) -> Sequence[str]:
    found: list[str] = column.to_pylist()
    return found
