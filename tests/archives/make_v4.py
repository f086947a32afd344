"""Write the formats that are newer than the third archive: a table of several sizes of tiles.

`python tests/archives/make_v4.py FOLDER`, once for each version.
"""

import sys
from pathlib import Path

from raystp import tables
from raystp.storage import StoragePath


def main(folder: Path) -> None:
    """Write the archive."""
    if folder.exists():
        sys.exit(f"{folder} is there already, and an archive is never written again")
    rows = [[0, 16.0, 8.0, 4.0, 32.0], [0, 40.0, -16.0, -20.0, 80.0]]
    named: list[dict[str, object]] = [dict(zip(tables.SCALES.names, row, strict=True)) for row in rows]
    (StoragePath.of(folder) / "scales.parquet").write_table(tables.of_rows(named, tables.SCALES))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
