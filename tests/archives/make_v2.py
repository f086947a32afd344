"""Write the formats that are newer than the first archive: reference indexes of version 2, and neighbours.

`python tests/archives/make_v2.py FOLDER`, once for each version.
"""

import json
import sys
from pathlib import Path

import numpy as np

from raystp import tables
from raystp.impute.neighbours import neighbours_table
from raystp.index.expression.forms import Form
from raystp.index.reference import ReferenceRows
from raystp.index.search.kinds import IndexParams, Kind
from raystp.index.write import write_reference_index
from raystp.storage import StoragePath

INDEXES: dict[str, tuple[Kind, Form]] = {
    "bank-float32": ("exact", "float32"),
    "bank-float16": ("exact", "float16"),
    "bank-csr": ("exact", "csr"),
    "bank-csr16": ("exact", "csr16"),
    "bank-ivf": ("ivf", "float32"),
}


def main(folder: Path) -> None:
    """Write the archive."""
    if folder.exists():
        sys.exit(f"{folder} is there already, and an archive is never written again")
    place, values = StoragePath.of(folder), np.arange(6, dtype=np.float32).reshape(2, 3)
    who = {"sections": ["S", "S"], "spots": ["s0", "s1"], "patients": ["P", "P"], "columns": {"slide": ["S", "S"]}}
    reference = ReferenceRows(vectors=values[:, :2].copy(), expression=values, genes=["A", "B", "C"], **who)  # type: ignore[arg-type]  # each is its field's
    for name, (kind, form) in INDEXES.items():
        params = IndexParams(kind=kind, form=form, lists=1)
        described = write_reference_index(
            place / name, reference, shards=1 if kind == "ivf" else 2, metric="l2", params=params
        )
        (place / f"{name}.json").write_bytes(json.dumps(described, indent=1, sort_keys=True).encode())
    tiles = tables.of_columns([["S"], [0], [0.0], [0.0], [10.0], [None]], tables.TILES)
    weights = np.array([[0.75, 0.25]], np.float32)
    near = neighbours_table(tiles, np.array([[1, 0]]), np.array([0.5], np.float32), weights)
    (place / "neighbours.parquet").write_table(near)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
