"""Tiles as pixels, to train an image encoder: read in threads or in other processes, normalised for the encoder."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8

from raystp import tables
from raystp.artifacts import Artifact
from raystp.cluster.streams.pixels import PREFETCH, ReaderPool, pixel_stream
from raystp.encoders.encoder import Encoder
from raystp.encoders.normalise import PixelNormaliser
from raystp.expression.training_set import SpotTable
from raystp.slides.open import Slide, open_slide, read_tiles
from raystp.storage import StoragePath
from raystp.storage.node_cache import NodeCache
from raystp.units import TilePixels

READ_THREADS = 4

Rows = Int64[np.ndarray, " _"]


@dataclass
class TileRows:
    """Read the tiles of stacked spots by row number. Slides stay open; `fresh` gives a copy to send to readers."""

    tile: Artifact
    slides: tuple[str, ...]
    group: Int64[np.ndarray, "spot"]
    boxes: Float64[np.ndarray, "spot 3"]
    """Tiles (x, y, side) in level-0 px."""
    cache: NodeCache | None = None
    _open: dict[str, Slide] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, tile: Artifact, spots: SpotTable, cache: NodeCache | None = None) -> "TileRows":
        """Return the reader of the spots' tiles."""
        return cls(tile, spots.slides, spots.group, spots.boxes, cache)

    def fresh(self) -> "TileRows":
        """Return a copy without open slides."""
        return replace(self, _open={})

    def __call__(self, rows: Rows) -> UInt8[np.ndarray, "_ pixel pixel 3"]:
        """Return the tiles, in the order of `rows`."""
        side = TilePixels(int(self.tile.manifest.notes["pixels"]))
        tiles = np.empty((len(rows), side, side, 3), np.uint8)
        groups = self.group[rows]
        for number in np.unique(groups).tolist():
            mine = np.flatnonzero(groups == number)
            slide = self._slide(self.slides[number])
            tiles[mine] = read_tiles(slide, self.boxes[rows[mine]], side, threads=READ_THREADS)
        return tiles

    def _slide(self, name: str) -> Slide:
        if name not in self._open:
            rows = self.tile.table("slides.parquet", tables.SLIDES).to_pylist()
            row = next(row for row in rows if row["slide"] == name)
            self._open[name] = open_slide(name, StoragePath(row["path"]), given_mpp=row["mpp"], cache=self.cache)
        return self._open[name]


@dataclass
class PixelPairs:
    """Tiles and expression to train an image encoder on: a `SampleSet`."""

    rows: TileRows
    expression: Float[torch.Tensor, "spot gene"]
    encoder: Encoder
    augment: bool
    """Whether each tile is rotated by multiples of 90 degrees and mirrored at random (torch's generator)."""
    readers: ReaderPool | None = None
    """Processes that read tiles; None reads them in a thread of the trainer, while it computes."""
    _prefetched: Iterator[tuple[Rows, torch.Tensor]] = field(default_factory=lambda: iter(()))

    def __len__(self) -> int:
        return len(self.expression)

    def prefetch(self, parts: Sequence[Rows], epoch: int) -> None:  # noqa: ARG002 -- every epoch reads the same tiles
        """Start to read an epoch's tiles, in this order."""
        if self.readers is not None:
            self._prefetched = zip(parts, pixel_stream(self.rows.fresh(), parts, self.readers), strict=False)
        else:
            self._prefetched = _read_ahead(self.rows, parts)

    def at(self, rows: Rows) -> tuple[Float[torch.Tensor, "pair 3 pixel pixel"], Float[torch.Tensor, "pair gene"]]:
        """Return normalised tiles, augmented if `augment` is set, and their expression."""
        device, tiles = self.expression.device, self._read(rows)
        tiles = _augmented(tiles) if self.augment else tiles
        # A new buffer for each batch, since the gradient still needs the last one.
        encoder, side = self.encoder, tiles.shape[1]
        normalise = PixelNormaliser(encoder.mean, encoder.std, side=side, capacity=len(tiles), device=device)
        return normalise(tiles.numpy()), self.expression[torch.from_numpy(rows).to(device)]

    def _read(self, rows: Rows) -> UInt8[torch.Tensor, "_ pixel pixel 3"]:
        for part, pixels in self._prefetched:
            if np.array_equal(part, rows):
                return pixels
            self._prefetched = iter(())  # other rows are needed: discard what was prefetched
        return torch.from_numpy(self.rows(rows))


def _read_ahead(read: TileRows, parts: Sequence[Rows]) -> Iterator[tuple[Rows, torch.Tensor]]:
    """Yield the pixels of each part in turn, while a thread reads the next ones."""
    with ThreadPoolExecutor(1) as reader:
        pending = deque(reader.submit(read, part) for part in parts[:PREFETCH])
        for number, part in enumerate(parts):
            pixels = torch.from_numpy(pending.popleft().result())
            if number + PREFETCH < len(parts):
                pending.append(reader.submit(read, parts[number + PREFETCH]))
            yield part, pixels


def _augmented(tiles: UInt8[torch.Tensor, "pair pixel pixel 3"]) -> UInt8[torch.Tensor, "pair pixel pixel 3"]:
    turns, mirrored, out = torch.randint(4, (len(tiles),)), torch.randint(2, (len(tiles),)), torch.empty_like(tiles)
    for turn in range(4):
        for flip in range(2):
            rows = ((turns == turn) & (mirrored == flip)).nonzero()[:, 0]
            out[rows] = torch.rot90(tiles[rows].flip(2) if flip else tiles[rows], turn, (1, 2))
    return out
