"""Tiles for training: the requested rows, prefetched or not; normalised, and augmented only if requested."""

import numpy as np
import torch
from torch import Tensor, nn

from raystp.encoders.augment.options import Augmentation
from raystp.encoders.augment.tiles import augment_tiles
from raystp.encoders.encoder import Encoder
from raystp.steps.train.spots.pixels import EncoderTiles, TileRows
from raystp.units import TilePixels

SIDE, TILES = 6, 40
PIXELS = np.random.default_rng(0).integers(0, 256, (TILES, SIDE, SIDE, 3), dtype=np.uint8)
ENCODER = Encoder("none", nn.Identity(), 1, TilePixels(SIDE), (0.5, 0.4, 0.3), (0.1, 0.2, 0.3), "")
HED = Augmentation(stain="hed", stain_strength=0.2)


class _Arrays(TileRows):
    """Tiles that lie in memory."""

    def __init__(self) -> None:
        pass

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = PIXELS[rows]
        return found


def _tiles(augment: Augmentation | None = None) -> EncoderTiles:
    return EncoderTiles(_Arrays(), ENCODER, torch.device("cpu"), augment, seed=5)


def _normalised(pixels: np.ndarray) -> Tensor:
    tiles = torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).float() / 255
    return (tiles - torch.tensor(ENCODER.mean).view(3, 1, 1)) / torch.tensor(ENCODER.std).view(3, 1, 1)


def test_tiles_are_those_asked_for_whether_they_were_prefetched_or_not() -> None:
    parts = np.split(np.random.default_rng(1).permutation(TILES).astype(np.int64), [3, 11, 17, 30])  # of unequal sizes
    tiles = _tiles()
    tiles.prefetch(parts, 0)
    for asked in (*parts[:2], parts[4], *parts[2:], parts[0]):
        torch.testing.assert_close(tiles(asked), _normalised(PIXELS[asked]))


def test_an_augmented_tile_depends_on_its_row_and_the_epoch_and_not_on_the_batch() -> None:
    rows = np.random.default_rng(1).permutation(TILES).astype(np.int64)
    for epoch in (0, 1):
        wanted = _normalised(augment_tiles(PIXELS[rows], rows, HED, seed=5, epoch=epoch))
        for parts in (np.split(rows, 2), np.split(rows, 8)):
            tiles = _tiles(HED)
            tiles.prefetch(parts, epoch)
            torch.testing.assert_close(torch.cat([tiles(part) for part in parts]), wanted)
    assert not torch.equal(wanted, _normalised(augment_tiles(PIXELS[rows], rows, HED, seed=5, epoch=0)))


def test_a_batch_is_not_written_over_by_the_next() -> None:
    tiles = _tiles(HED)
    first = tiles(np.arange(20))
    kept = first.clone()
    tiles(np.arange(20, 40))
    assert torch.equal(first, kept)
