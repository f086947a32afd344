"""Read the embeddings of a slide, and match its tiles by place with those of other embeddings."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64
from scipy.spatial import cKDTree

from raystp import tables
from raystp.artifacts import Artifact
from raystp.errors import ArtifactError, ConfigError, some
from raystp.storage import StoragePath
from raystp.units import tile_centres

SAME_PLACE = 1.5
"""In level-0 px. Corners are rounded to whole pixels, so the centres of tiles of two sizes differ by up to 1.42."""


def read_embeddings(embed: Artifact, slide: str) -> pa.Table:
    """Return the committed embeddings of a slide, its units in order.

    Raises ArtifactError where it has none, and for a file that is not of these embeddings, that has more rows than all
    of them, or that holds a vector that is not finite. A file is checked by its header before a value is read.
    """
    precision = embed.manifest.notes["precision"]
    folder, units = units_of(embed, slide)
    if not units:
        return tables.embeddings(1, precision=precision).empty_table()
    read = _UnitReader(precision, embed.manifest.rows.get("tiles"))
    table = pa.concat_tables([read(folder / f"{unit}.parquet") for unit in units])
    bad = np.flatnonzero(~np.isfinite(tables.matrix(table["vector"])).all(axis=1))
    if len(bad):
        tiles = some([str(tile) for tile in table["tile"].take(bad).to_pylist()])
        msg = (
            f"{folder} has {len(bad)} vectors that are not finite (tiles {tiles}): the files are damaged or were "
            f"changed; remove {embed.path} and run `raystp embed` again"
        )
        raise ArtifactError(msg)
    return table


@dataclass
class _UnitReader:
    """Reads the files of a slide's units, all with vectors of the first one's length."""

    precision: str
    most_rows: int | None
    dim: int | None = None

    def __call__(self, file: StoragePath) -> pa.Table:
        def check(schema: pa.Schema, rows: int) -> None:
            if self.dim is None and "vector" in schema.names:
                self.dim = getattr(schema.field("vector").type, "list_size", None)
            tables.check(schema, tables.embeddings(self.dim or 1, precision=self.precision), str(file))
            if self.most_rows is not None and rows > self.most_rows:
                msg = f"{file} has {rows} rows, and all embeddings together have {self.most_rows}: another file"
                raise ArtifactError(msg)

        return file.read_table(check=check)


def match_places(first: pa.Table, other: pa.Table) -> Int64[np.ndarray, "tile"]:
    """Return the row of `other` at the place of each row of `first`; -1 where there is none.

    Spots match by id where both tables have them, other tiles by the centre. Raises ConfigError where two tiles match
    one.
    """
    spots, others = first["spot"].to_pylist(), other["spot"].to_pylist()
    if None not in spots and None not in others:
        row_of = {spot: row for row, spot in enumerate(others)}
        return np.array([row_of.get(spot, -1) for spot in spots], np.int64)
    if not len(spots) or not len(others):
        return np.full(len(spots), -1, np.int64)
    distance, nearest = cKDTree(centres_of(other)).query(centres_of(first))
    rows = np.where(distance <= SAME_PLACE, nearest, -1).astype(np.int64)
    matched = rows[rows >= 0]
    if len(np.unique(matched)) < len(matched):
        msg = "embeddings: tiles lie less than 2 px apart, so they cannot be matched by place"
        raise ConfigError(msg)
    return rows


def read_places(embed: Artifact, slide: str) -> pa.Table:
    """Return a slide's tiles without their vectors."""
    folder, units = units_of(embed, slide)
    names = list(tables.TILES.names)
    parts = [(folder / f"{unit}.parquet").read_table(names).replace_schema_metadata(None) for unit in units]
    return pa.concat_tables([tables.TILES.empty_table().replace_schema_metadata(None), *parts])


def centres_of(tiles: pa.Table) -> Float64[np.ndarray, "tile 2"]:
    """Return the centres of tiles (x, y), in level-0 px."""
    return tile_centres(np.stack([tiles[name].to_numpy() for name in ("x", "y", "side")], axis=1))


def units_of(embed: Artifact, slide: str, kind: str = "embeddings") -> tuple[StoragePath, list[str]]:
    """Return the folder of a slide's tables of one kind, and its units; raises ArtifactError for a slide without."""
    units: list[str] | None = embed.manifest.notes["units"].get(slide)
    if units is None:
        failed = {row["slide"]: row["reason"] for row in embed.failures().to_pylist()}
        known = ", ".join(embed.manifest.notes["units"])
        reason = f"it failed: {failed[slide]}" if slide in failed else f"there are {known}"
        msg = f"slide '{slide}' has no embeddings in {embed.path}; {reason}"
        raise ArtifactError(msg)
    return embed.path / kind / slide, units
