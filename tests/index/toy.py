"""Toy indexes: rows around a few centres, of several patients; every vector and every value of expression is unique."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from raystp.index.open import ReferenceIndex, open_reference_index
from raystp.index.reference import ReferenceRows
from raystp.index.search.kinds import IndexParams, Kind
from raystp.index.search.score import Metric
from raystp.index.write import write_reference_index
from raystp.storage import StoragePath

ROWS, JOINT, GENES = 1500, 16, 3


def vectors(rows: int, seed: int) -> Any:
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((40, JOINT))
    around = centres[random.integers(0, 40, rows)] + 0.4 * random.standard_normal((rows, JOINT))
    return around.astype(np.float32)


def reference(rows: int = ROWS, seed: int = 0, patients: str = "ABC") -> ReferenceRows:
    """Return runs of 50 rows per patient, so that each patient is in every shard; names contain the patient."""
    owners = [patients[row // 50 % len(patients)] for row in range(rows)]
    return ReferenceRows(
        vectors=vectors(rows, seed),
        expression=np.random.default_rng(seed + 1).random((rows, GENES), dtype=np.float32),
        genes=[f"gene{number}" for number in range(GENES)],
        sections=[f"section-of-{owner}" for owner in owners],
        spots=[f"spot-{owner}-{row}" for row, owner in enumerate(owners)],
        patients=[f"patient-{owner}" for owner in owners],
        columns={"tissue": ["breast" if row % 3 else "skin" for row in range(rows)]},
    )


def make_index(
    folder: Path, kind: Kind, *, shards: int = 2, metric: Metric = "cosine", **changed: Any
) -> tuple[ReferenceIndex, Any]:
    """Write an index and open it; a small k and a low target recall suit few rows."""
    params = IndexParams(kind=kind, **{"k": 10, "recall": 0.9, **changed})
    description = write_reference_index(
        StoragePath.of(folder), reference(), shards=shards, metric=metric, params=params
    )
    description = json.loads(json.dumps(description))
    return open_reference_index(StoragePath.of(folder), description), description
