"""Tiles as pixels, for training end to end: read when they are needed, normalised as the encoder's tower expects."""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8

from raystp import tables
from raystp.artifacts import Artifact
from raystp.encoders.encoder import Encoder
from raystp.slides.open import Slide, open_slide, read_tiles
from raystp.steps.training_set import Stack
from raystp.storage import Place
from raystp.units import TilePixels

READ_THREADS = 4


@dataclass
class TilePixelSource:
    """Reads the tiles of stacked spots; every slide stays open while it lives."""

    tile: Artifact
    stack: Stack
    encoder: Encoder
    device: torch.device
    _open: dict[str, Slide] = field(default_factory=dict)

    def plain(self, rows: Int64[np.ndarray, "pair"]) -> Float[torch.Tensor, "pair 3 pixel pixel"]:
        """Return normalised tiles."""
        pixels = torch.from_numpy(self._read(rows)).to(self.device).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(values, device=self.device).view(1, 3, 1, 1) for values in self._scale())
        return (pixels - mean) / std

    def augmented(self, rows: Int64[np.ndarray, "pair"]) -> Float[torch.Tensor, "pair 3 pixel pixel"]:
        """Return normalised tiles, each turned by quarter turns and mirrored at random (torch's generator)."""
        tiles = self.plain(rows)
        turns, mirrored = torch.randint(4, (len(tiles),)).tolist(), torch.randint(2, (len(tiles),)).tolist()
        return torch.stack(
            [
                torch.rot90(tile.flip(2) if flip else tile, turn, (1, 2))
                for tile, turn, flip in zip(tiles, turns, mirrored, strict=True)
            ]
        )

    def _scale(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        return self.encoder.mean, self.encoder.std

    def _read(self, rows: Int64[np.ndarray, "pair"]) -> UInt8[np.ndarray, "pair pixel pixel 3"]:
        side = TilePixels(int(self.tile.manifest.notes["pixels"]))
        tiles = np.empty((len(rows), side, side, 3), np.uint8)
        groups = self.stack.group[rows]
        for number in np.unique(groups).tolist():
            mine = np.flatnonzero(groups == number)
            slide = self._slide(self.stack.slides[number])
            tiles[mine] = read_tiles(slide, self.stack.squares[rows[mine]], side, threads=READ_THREADS)
        return tiles

    def _slide(self, name: str) -> Slide:
        if name not in self._open:
            rows = self.tile.table("slides.parquet", tables.SLIDES).to_pylist()
            row = next(row for row in rows if row["slide"] == name)
            self._open[name] = open_slide(name, Place(row["path"]), given_mpp=row["mpp"])
        return self._open[name]
