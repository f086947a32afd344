"""Write the tiles and vectors of one slide as files of another tool, in a Ray worker."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from raystp import tables
from raystp.artifacts import Artifact, open_artifact
from raystp.errors import failure_as_reason
from raystp.expression.embeddings.read import read_embeddings
from raystp.interop.features.encoders import name_in
from raystp.interop.features.tiles import TileVectors
from raystp.interop.registry import feature_format
from raystp.steps.export.config import ExportConfig
from raystp.steps.export.expression import tissue_of
from raystp.storage import StoragePath


@dataclass(frozen=True)
class FeatureTask:
    """One slide of embeddings to export."""

    slide: str
    embeddings: Artifact
    config: ExportConfig


@dataclass(frozen=True)
class Exported:
    """A slide that was written."""

    slide: str
    tiles: int
    encoder: str
    """Name of the encoder in the files; empty for images."""
    notes: tuple[str, ...]
    """What was rounded or left out."""


def feature_tasks(embeddings: Artifact, config: ExportConfig) -> list[FeatureTask]:
    """Return a task for each slide of embeddings."""
    return [FeatureTask(slide, embeddings, config) for slide in embeddings.manifest.notes["units"]]


@failure_as_reason
def export_features(task: FeatureTask) -> Exported:
    """Write one slide; a failure is returned as its reason."""
    config = task.config
    tiles = _tiles(task)
    notes = feature_format(config.format).write(tiles, StoragePath.of(config.out))
    return Exported(task.slide, len(tiles.boxes), str(tiles.encoder), tuple(notes))


def _tiles(task: FeatureTask) -> TileVectors:
    embed, slide = task.embeddings, task.slide
    notes = embed.manifest.notes
    made_on = open_artifact(embed.noted(notes["tiles"]), "tile")
    rows = made_on.table("slides.parquet", tables.SLIDES).to_pylist()
    row = next(one for one in rows if one["slide"] == slide)
    table = read_embeddings(embed, slide)
    vectors = tables.matrix(table["vector"]).astype(notes["precision"])  # float16 stays so
    name, config = str(notes["encoder"]["name"]), task.config
    spots = table["spot"].to_pylist()
    return TileVectors(
        slide=slide,
        boxes=np.stack([table[name].to_numpy() for name in ("x", "y", "side")], axis=1),
        vectors=vectors,
        tile_px=int(notes["pixels"]),
        tile_um=float(notes["side"]),
        mpp=float(row["mpp"]),
        size=(int(row["width"]), int(row["height"])),
        encoder=config.encoder_name or name_in(config.format, name, vectors.shape[1]),
        spots=None if None in spots else tuple(spots),
        tissue=tissue_of(made_on, slide),
        image=row["path"] or None,
        attributes=_source(embed, row),
    )


def _source(embed: Artifact, row: dict[str, Any]) -> dict[str, Any]:
    """Return where the numbers are from, for the attribute `raystp`."""
    notes = embed.manifest.notes
    return {
        "artifact": embed.manifest.folder,
        "encoder": notes["encoder"]["name"],
        "encoder_identity": notes.get("encoder_identity"),
        "slide": row["slide"],
        "content": row["content"],
        "mpp": row["mpp"],
        "tile": {"side": notes["side"], "pixels": notes["pixels"]},
    }
