"""Write the formats that are newer than the second archive: a reference index of version 3, with an unmeasured gene.

`python tests/archives/make_v3.py FOLDER`, once for each version.
"""

import json
import sys
from pathlib import Path

import numpy as np

from raystp.index.reference import ReferenceRows
from raystp.index.write import write_reference_index
from raystp.storage import StoragePath


def main(folder: Path) -> None:
    """Write the archive."""
    if folder.exists():
        sys.exit(f"{folder} is there already, and an archive is never written again")
    place, values = StoragePath.of(folder), np.arange(6, dtype=np.float32).reshape(2, 3)
    reference = ReferenceRows(
        vectors=values[:, :2].copy(),
        expression=values * np.array([[1, 1, 1], [1, 1, 0]], np.float32),
        genes=["A", "B", "C"],
        sections=["S", "T"],
        spots=["s0", "t0"],
        patients=["P", "Q"],
        unmeasured={"T": [2]},
    )
    described = write_reference_index(place / "bank", reference, shards=2, metric="l2")
    (place / "bank.json").write_bytes(json.dumps(described, indent=1, sort_keys=True).encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
