"""Tiles as pixels, to train an image encoder: read in threads or in other processes, augmented, and normalised."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8

from raystp import tables
from raystp.artifacts import Artifact
from raystp.cluster.streams.pixels import PREFETCH, ReaderPool, RowReader, pixel_stream
from raystp.encoders.augment.options import Augmentation
from raystp.encoders.augment.tiles import augment_tiles
from raystp.encoders.encoder import Encoder
from raystp.encoders.normalise import PixelNormaliser
from raystp.encoders.transfer import Transfer, transfer_to
from raystp.expression.training_set import SpotTable
from raystp.slides.open import Slide, read_tiles
from raystp.steps.embed.reader import SlideTiles, open_tiled
from raystp.storage.node_cache import NodeCache
from raystp.units import TilePixels

READ_THREADS = 4
STREAM_TILES = 32
"""Tiles of a block that a separate reader reads."""

Rows = Int64[np.ndarray, " _"]
Tiles = UInt8[np.ndarray, "_ pixel pixel 3"]


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

    def __call__(self, rows: Rows) -> Tiles:
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
            tiled = SlideTiles(row["path"], row["mpp"], row["content"])
            self._open[name] = open_tiled(name, tiled, self.cache)
        return self._open[name]


@dataclass(frozen=True)
class AugmentedRows:
    """Read tiles by row number, as they are augmented in one epoch."""

    read: RowReader
    options: Augmentation
    seed: int
    epoch: int

    def __call__(self, rows: Rows) -> Tiles:
        """Return the changed tiles, in the order of `rows`."""
        return augment_tiles(self.read(rows), rows, self.options, seed=self.seed, epoch=self.epoch)


@dataclass(frozen=True)
class _DeviceSide:
    """Copies tiles to the trainer's device, on a GPU under the step before, and normalises them there."""

    transfer: Transfer
    normaliser: PixelNormaliser

    @classmethod
    def of(cls, encoder: Encoder, side: TilePixels, device: torch.device) -> "_DeviceSide":
        """Return the copies for an encoder; made once, since constants of a normaliser are copied to the device."""
        return cls(
            transfer_to(device), PixelNormaliser(encoder.mean, encoder.std, side=side, capacity=0, device=device)
        )

    def __call__(self, tiles: Tiles) -> Float[torch.Tensor, "tile 3 pixel pixel"]:
        """Return the tiles in memory of their own: the gradient needs them until the end of the step."""
        with self.transfer.sent(tiles) as sent:
            return self.normaliser.normalise(sent, keep=True)


@dataclass
class EncoderTiles:
    """Tiles for an encoder that is trained: a `TileSource`."""

    rows: TileRows
    encoder: Encoder
    device: torch.device
    augment: Augmentation | None = None
    """How tiles are changed in each epoch; None for validation tiles."""
    seed: int = 0
    readers: ReaderPool | None = None
    """Processes that read tiles; None reads them in a thread of the trainer, while it computes."""
    _epoch: int = 0
    _prefetched: Iterator[tuple[Rows, torch.Tensor]] = field(default_factory=lambda: iter(()))
    _device_side: "_DeviceSide | None" = None

    def prefetch(self, parts: Sequence[Rows], epoch: int) -> None:
        """Start to read an epoch's tiles, in this order."""
        self._epoch = epoch
        if self.readers is not None:
            self._prefetched = _from_readers(self._read(self.rows.fresh()), parts, self.readers)
        else:
            self._prefetched = _read_ahead(self._read(self.rows), parts)

    def __call__(self, rows: Rows) -> Float[torch.Tensor, "tile 3 pixel pixel"]:
        """Return normalised tiles, augmented if `augment` is set."""
        tiles = self._pixels(rows)
        if self._device_side is None:
            self._device_side = _DeviceSide.of(self.encoder, TilePixels(tiles.shape[1]), self.device)
        return self._device_side(tiles.numpy())

    def _pixels(self, rows: Rows) -> UInt8[torch.Tensor, "_ pixel pixel 3"]:
        for part, pixels in self._prefetched:
            if np.array_equal(part, rows):
                return pixels
            self._prefetched = iter(())  # other rows are needed: discard what was prefetched
        return torch.from_numpy(self._read(self.rows)(rows))

    def _read(self, rows: TileRows) -> RowReader:
        return rows if self.augment is None else AugmentedRows(rows, self.augment, self.seed, self._epoch)


def _read_ahead(read: RowReader, parts: Sequence[Rows]) -> Iterator[tuple[Rows, torch.Tensor]]:
    """Yield the pixels of each part in turn, while a thread reads the next ones."""
    with ThreadPoolExecutor(1) as reader:
        pending = deque(reader.submit(read, part) for part in parts[:PREFETCH])
        for number, part in enumerate(parts):
            pixels = torch.from_numpy(pending.popleft().result())
            if number + PREFETCH < len(parts):
                pending.append(reader.submit(read, parts[number + PREFETCH]))
            yield part, pixels


def _from_readers(read: RowReader, parts: Sequence[Rows], readers: ReaderPool) -> Iterator[tuple[Rows, torch.Tensor]]:
    """Yield the pixels of each part in turn; the readers read blocks of equal size, whatever the parts' sizes."""
    rows = np.concatenate(parts)
    blocks = [rows[start : start + STREAM_TILES] for start in range(0, len(rows), STREAM_TILES)]
    stream, ready = pixel_stream(read, blocks, readers), deque[torch.Tensor]()
    for part in parts:
        while sum(len(block) for block in ready) < len(part):
            ready.append(next(stream))
        pixels = torch.cat(list(ready))
        ready = deque([pixels[len(part) :]])
        yield part, pixels[: len(part)]
