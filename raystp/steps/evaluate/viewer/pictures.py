"""Small pictures of reference tiles: read from slides that are on this machine, else cut from thumbnails."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image

from raystp import tables
from raystp.artifacts import Artifact, open_artifact
from raystp.errors import RaystpError
from raystp.evaluate.report.viewer.content import SlideThumbnail
from raystp.expression.sections import embeddings_of, sections_of
from raystp.slides.open import open_slide, read_tiles_or_fail
from raystp.steps.embedding_source import input_folders
from raystp.steps.evaluate.report import slide_thumbnail
from raystp.storage import StoragePath
from raystp.units import TilePixels

SIDE = TilePixels(64)
"""Pixels along a side of a picture: about 2 KB as JPEG."""

MOST = 1500
"""Pictures of reference tiles in a page, and as many of the tiles that were predicted: further ones are named only."""


@dataclass(frozen=True)
class ReferenceTiles:
    """Where the tiles of an index's rows are: its measured spots, and the embeddings of their tiles."""

    spots: Artifact
    embed: Artifact

    @classmethod
    def of(cls, index: Artifact, store: StoragePath) -> "ReferenceTiles | None":
        """Open what an index was written from; None where that is not in the store, as for a published one."""
        inputs = index.manifest.inputs
        folders = [inputs.get("spots"), *input_folders(inputs, "embeddings")[:1]]
        found = [store / folder for folder in folders if folder is not None and (store / folder).exists()]
        if len(found) < 2:  # noqa: PLR2004 -- spots and embeddings
            return None
        return cls(open_artifact(found[0], "spots"), open_artifact(found[1], "embed"))

    def pictures(self, sections: Sequence[str], spots: Sequence[str]) -> list[bytes | None]:
        """Return each spot's tile as JPEG; None where the tile is not known, or is beyond the first `MOST`."""
        known, found = sections_of(self.spots), list[bytes | None]([None] * len(spots))
        for section in dict.fromkeys(sections[:MOST]):
            if section not in known:
                continue
            wanted = [row for row, name in enumerate(sections[:MOST]) if name == section]
            slide = known[section]["slide"]
            boxes = self._boxes(slide)
            rows = [row for row in wanted if spots[row] in boxes]
            if rows:
                made = tile_pictures(self.embed, slide, np.stack([boxes[spots[row]] for row in rows]))
                for row, picture in zip(rows, made, strict=True):
                    found[row] = picture
        return found

    def _boxes(self, slide: str) -> Mapping[str, Float64[np.ndarray, "3"]]:
        table = embeddings_of(self.embed, slide)
        boxes = np.stack([table[name].to_numpy() for name in ("x", "y", "side")], axis=1)
        return {spot: box for spot, box in zip(table["spot"].to_pylist(), boxes, strict=True) if spot is not None}


def tile_pictures(embed: Artifact, slide: str, boxes: Float64[np.ndarray, "tile 3"]) -> list[bytes]:
    """Return boxes (x, y, side) in level-0 px of a slide as JPEG."""
    tile = open_artifact(embed.noted(embed.manifest.notes["tiles"]), "tile")
    row = next(row for row in tile.table("slides.parquet", tables.SLIDES).to_pylist() if row["slide"] == slide)
    path, pixels = StoragePath.of(row["path"]), None
    if path.is_local and path.exists():
        # A slide that was moved or damaged since costs only the sharper picture.
        with contextlib.suppress(RaystpError), open_slide(slide, path, given_mpp=row["mpp"]) as opened:
            pixels = read_tiles_or_fail(opened, boxes, SIDE)[0]
    return [_jpeg(one) for one in (cut_tiles(slide_thumbnail(embed, slide), boxes) if pixels is None else pixels)]


def cut_tiles(thumbnail: SlideThumbnail, boxes: Float64[np.ndarray, "tile 3"]) -> UInt8[np.ndarray, "tile px px 3"]:
    """Return boxes (x, y, side) in level-0 px, cut from a thumbnail and enlarged."""
    image, scale = Image.fromarray(thumbnail.pixels), thumbnail.pixels.shape[1] / thumbnail.width
    tiles = []
    for x, y, side in (boxes * scale).tolist():
        cut = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=_inside((x, y, x + side, y + side), image))
        tiles.append(np.asarray(cut))
    return np.stack(tiles)


def _inside(box: tuple[float, float, float, float], image: Image.Image) -> tuple[float, float, float, float]:
    """Return the part of a box that is inside the image, at least a pixel wide."""
    left, top = (min(max(low, 0.0), end - 1.0) for low, end in zip(box[:2], image.size, strict=True))
    right, bottom = (
        min(max(high, low + 1.0), float(end)) for high, low, end in zip(box[2:], (left, top), image.size, strict=True)
    )
    return left, top, right, bottom


def _jpeg(tile: UInt8[np.ndarray, "px px 3"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(tile).save(buffer, format="JPEG", quality=80)
    return buffer.getvalue()
