"""Samples of a training from pixels: those of the method, whose features are numbers of tiles, and the tiles' pixels.

A method makes its samples as for cached features. From pixels, each tile's features are one value: its number in the
table of spots, from 1 on, so that padding (0) is no tile. So any method can say which tiles a batch needs, its
neighbours and bags among them. Each tile is read and encoded once per batch, however often the batch names it.

Numbers are read from the device once, when an epoch starts: in a step that would wait for the step before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from raystp.models.training.bags import BagSamples
from raystp.models.training.samples import Prefetching, SampleSet, to_device

Rows = Int64[np.ndarray, " _"]
NamedRows = tuple[Int64[np.ndarray, "..."], ...]
"""The rows of the tiles at each position of a model's arguments that has tiles; -1 is padding."""


@runtime_checkable
class TileSource(Protocol):
    """Tiles by their row in the table of spots, ready for an encoder."""

    def __call__(self, rows: Rows) -> Float[Tensor, "tile 3 pixel pixel"]:
        """Return the tiles of some rows, on the model's device."""
        ...

    def prefetch(self, parts: Sequence[Rows], epoch: int) -> None:
        """Begin to read these rows, in this order."""
        ...


def tile_numbers(count: int) -> Float32[np.ndarray, "tile 1"]:
    """Return the features of a training from pixels: the numbers 1 to `count`."""
    return np.arange(1, count + 1, dtype=np.float32)[:, None]


def rows_of(numbers: Float[np.ndarray, "*shape 1"]) -> Int64[np.ndarray, "*shape"]:
    """Return the row of each numbered tile; -1 is padding."""
    rows: Int64[np.ndarray, "*shape"] = np.asarray(numbers[..., 0], np.int64) - 1
    return rows


def with_features_of(bags: SampleSet, features: Float32[np.ndarray, "tile feature"]) -> BagSamples:
    """Return bags of numbered tiles with the features of these tiles."""
    assert isinstance(bags, BagSamples)  # as all validation bags are

    def tiles(bag: int, chosen: Rows | None) -> Float[np.ndarray, "tile feature"]:
        found: Float[np.ndarray, "tile feature"] = features[rows_of(bags.tiles(bag, chosen))]
        return found

    return replace(bags, tiles=tiles)


@dataclass
class TileSamples:
    """Samples whose features are numbers of tiles, with the pixels of those tiles."""

    samples: SampleSet
    inputs: tuple[int, ...]
    """Which of the samples' values are features."""
    tiles: TileSource
    _numbers: dict[bytes, NamedRows] = field(default_factory=dict, repr=False)
    """Samples -> the rows at each of `inputs`, of the batches that are prefetched and not used yet."""

    def __len__(self) -> int:
        return len(self.samples)

    def prefetch(self, parts: Sequence[Rows], epoch: int) -> None:
        """Start an epoch of the samples, and begin to read its tiles."""
        if isinstance(self.samples, Prefetching):
            self.samples.prefetch(parts, epoch)
        self._numbers = {part.tobytes(): self._read_numbers(self.samples.at(part)) for part in parts}
        self.tiles.prefetch([_needed(self._numbers[part.tobytes()]) for part in parts], epoch)

    def at(self, rows: Int64[np.ndarray, "sample"]) -> tuple[Tensor, ...]:
        """Return the arguments of a model with a tower: pixels, then the samples' own with numbers of these pixels."""
        own = list(self.samples.at(rows))
        named = self._numbers.pop(rows.tobytes(), ()) or self._read_numbers(tuple(own))
        needed = _needed(named)
        for position, numbers in zip(self.inputs, named, strict=True):
            found = np.where(numbers >= 0, np.searchsorted(needed, numbers) + 1, 0)
            own[position] = to_device(found.astype(np.int64), own[position].device)
        return (self.tiles(needed), *own)

    def _read_numbers(self, values: tuple[Tensor, ...]) -> NamedRows:
        """Return the rows at each of `inputs`; waits for the device."""
        return tuple(rows_of(values[position].cpu().numpy()) for position in self.inputs)


def _needed(named: NamedRows) -> Rows:
    """Return the rows of all tiles that some samples name, rising."""
    every = np.concatenate([rows.ravel() for rows in named])
    rows: Rows = np.unique(every[every >= 0])
    return rows
