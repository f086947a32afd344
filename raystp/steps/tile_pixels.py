"""Tiles as pixels, for training end to end: read beside the trainer or apart, normalised as its tower expects."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8

from raystp import tables
from raystp.artifacts import Artifact
from raystp.cluster.pixel_stream import Readers, pixel_stream
from raystp.encoders.encoder import Encoder
from raystp.slides.open import Slide, open_slide, read_tiles
from raystp.steps.training_set import Stack
from raystp.storage import Place
from raystp.storage.node_cache import NodeCache
from raystp.units import TilePixels

READ_THREADS = 4

Rows = Int64[np.ndarray, " _"]


@dataclass
class TileRows:
    """Reads stacked spots' tiles by number; every slide stays open while it lives. A fresh one travels to readers."""

    tile: Artifact
    slides: tuple[str, ...]
    group: Int64[np.ndarray, "spot"]
    squares: Float64[np.ndarray, "spot 3"]
    cache: NodeCache | None = None
    _open: dict[str, Slide] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, tile: Artifact, stack: Stack, cache: NodeCache | None = None) -> "TileRows":
        """Return the reader of a stack's tiles."""
        return cls(tile, stack.slides, stack.group, stack.squares, cache)

    def fresh(self) -> "TileRows":
        """Return one that holds no slide open."""
        return replace(self, _open={})

    def __call__(self, rows: Rows) -> UInt8[np.ndarray, "_ pixel pixel 3"]:
        """Return the tiles, in the order of `rows`."""
        side = TilePixels(int(self.tile.manifest.notes["pixels"]))
        tiles = np.empty((len(rows), side, side, 3), np.uint8)
        groups = self.group[rows]
        for number in np.unique(groups).tolist():
            mine = np.flatnonzero(groups == number)
            slide = self._slide(self.slides[number])
            tiles[mine] = read_tiles(slide, self.squares[rows[mine]], side, threads=READ_THREADS)
        return tiles

    def _slide(self, name: str) -> Slide:
        if name not in self._open:
            rows = self.tile.table("slides.parquet", tables.SLIDES).to_pylist()
            row = next(row for row in rows if row["slide"] == name)
            self._open[name] = open_slide(name, Place(row["path"]), given_mpp=row["mpp"], cache=self.cache)
        return self._open[name]


@dataclass
class PixelPairs:
    """Tiles and expression, as a tower's training takes them; see `Samples`."""

    rows: TileRows
    expression: Float[torch.Tensor, "spot gene"]
    encoder: Encoder
    augment: bool
    """Whether each tile is turned by quarter turns and mirrored at random (torch's generator)."""
    readers: Readers | None = None
    """Readers apart; without them tiles are read in threads of the trainer."""
    _ahead: Iterator[tuple[Rows, torch.Tensor]] = field(default_factory=lambda: iter(()))

    def __len__(self) -> int:
        return len(self.expression)

    def foresee(self, parts: Sequence[Rows], epoch: int) -> None:  # noqa: ARG002 -- every epoch reads the same tiles
        """Begin to read what an epoch will ask for, in that order."""
        if self.readers is not None:
            self._ahead = zip(parts, pixel_stream(self.rows.fresh(), parts, self.readers), strict=False)

    def at(self, rows: Rows) -> tuple[Float[torch.Tensor, "pair 3 pixel pixel"], Float[torch.Tensor, "pair gene"]]:
        """Return normalised tiles, augmented where that is asked for, and their expression."""
        device = self.expression.device
        tiles = self._read(rows).to(device).permute(0, 3, 1, 2).float() / 255
        mean, std = (
            torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (self.encoder.mean, self.encoder.std)
        )
        tiles = (tiles - mean) / std
        return _turned(tiles) if self.augment else tiles, self.expression[torch.from_numpy(rows).to(device)]

    def _read(self, rows: Rows) -> UInt8[torch.Tensor, "_ pixel pixel 3"]:
        for part, pixels in self._ahead:
            if np.array_equal(part, rows):
                return pixels
            self._ahead = iter(())  # asked for something else: what was foreseen is of no use
        return torch.from_numpy(self.rows(rows))


def _turned(tiles: Float[torch.Tensor, "pair 3 pixel pixel"]) -> Float[torch.Tensor, "pair 3 pixel pixel"]:
    turns, mirrored = torch.randint(4, (len(tiles),)).tolist(), torch.randint(2, (len(tiles),)).tolist()
    return torch.stack(
        [
            torch.rot90(tile.flip(2) if flip else tile, turn, (1, 2))
            for tile, turn, flip in zip(tiles, turns, mirrored, strict=True)
        ]
    )
