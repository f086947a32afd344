"""Write the pixels of the tiles of one slide as HEST's `patches/<id>.h5`, in a Ray worker."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from raystp import tables
from raystp.artifacts import Artifact
from raystp.errors import FormatError, failure_as_reason
from raystp.interop.sections.patches import PatchBatch, PatchGeometry, write
from raystp.slides.open import Slide, read_tiles_or_fail
from raystp.steps.embed.reader import SlideTiles, open_tiled
from raystp.steps.export.config import ExportConfig
from raystp.steps.export.features import Exported
from raystp.storage import StoragePath
from raystp.units import TilePixels

BATCH = 64
"""Images that are in memory at once; 64 of 224 px take 10 MB."""


@dataclass(frozen=True)
class PatchTask:
    """One slide of tiles to export."""

    slide: str
    tiles: Artifact
    config: ExportConfig


def patch_tasks(tiles: Artifact, config: ExportConfig) -> list[PatchTask]:
    """Return a task for each slide of tiles."""
    slides = tiles.table("slides.parquet", tables.SLIDES, ["slide"])["slide"].to_pylist()
    return [PatchTask(slide, tiles, config) for slide in slides]


@failure_as_reason
def export_patches(task: PatchTask) -> Exported:
    """Read the tiles of a slide as `embed` reads them, and write them; a failure is returned as its reason."""
    rows = task.tiles.table("slides.parquet", tables.SLIDES).to_pylist()
    row = next(one for one in rows if one["slide"] == task.slide)
    table = (task.tiles.path / "tiles" / f"{task.slide}.parquet").read_table(["x", "y", "side", "spot"])
    boxes = np.stack([table[name].to_numpy() for name in ("x", "y", "side")], axis=1)
    px = TilePixels(int(task.tiles.manifest.notes["pixels"]))
    patches = _geometry(task, row, boxes, table["spot"].to_pylist())
    tiled = SlideTiles(row["path"], float(row["mpp"]), row["content"])
    with open_tiled(task.slide, tiled, task.config.run.node_cache()) as slide:
        notes = write(patches, _batches(slide, boxes, px), StoragePath.of(task.config.out))
    return Exported(task.slide, len(boxes), "", tuple(notes))


def _geometry(
    task: PatchTask, row: dict[str, Any], boxes: Float64[np.ndarray, "tile 3"], spots: list[str | None]
) -> PatchGeometry:
    sides = np.unique(boxes[:, 2])
    if len(sides) != 1:
        msg = f"slide {task.slide!r} has {len(boxes)} tiles of {len(sides)} sides; a file of patches has one side"
        raise FormatError(msg)
    places = [f"{x:.0f}x{y:.0f}" for x, y in boxes[:, :2].tolist()]
    notes = task.tiles.manifest.notes
    return PatchGeometry(
        slide=task.slide,
        corners=boxes[:, :2],
        side=float(sides[0]),
        tile_px=int(notes["pixels"]),
        mpp=float(row["mpp"]),
        names=tuple(spot or place for spot, place in zip(spots, places, strict=True)),
        source={
            "artifact": task.tiles.manifest.folder,
            "slide": task.slide,
            "content": row["content"],
            "mpp": row["mpp"],
            "tile": {"side": notes["side"], "pixels": notes["pixels"]},
        },
    )


def _batches(slide: Slide, boxes: Float64[np.ndarray, "tile 3"], px: TilePixels) -> Iterator[PatchBatch]:
    """Yield the pixels of the tiles that can be read, in their order."""
    for first in range(0, len(boxes), BATCH):
        part = boxes[first : first + BATCH]
        pixels, failed = read_tiles_or_fail(slide, part, px)
        kept = np.setdiff1d(np.arange(len(part)), list(failed))
        yield PatchBatch(first + kept, pixels[kept])
