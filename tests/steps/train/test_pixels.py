"""Tiles for training: the requested rows, prefetched or not; normalised, and augmented only if requested."""

import numpy as np
import torch
from torch import Tensor, nn

from raystp.encoders.encoder import Encoder
from raystp.steps.train.spots.pixels import PixelPairs, TileRows
from raystp.units import TilePixels

SIDE, TILES = 6, 40
PIXELS = np.random.default_rng(0).integers(0, 256, (TILES, SIDE, SIDE, 3), dtype=np.uint8)
ENCODER = Encoder("none", nn.Identity(), 1, TilePixels(SIDE), (0.5, 0.4, 0.3), (0.1, 0.2, 0.3), "")


class _Arrays(TileRows):
    """Tiles that lie in memory."""

    def __init__(self) -> None:
        pass

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = PIXELS[rows]
        return found


def _pairs(*, augment: bool = False) -> PixelPairs:
    return PixelPairs(_Arrays(), torch.arange(float(TILES))[:, None], ENCODER, augment)


def _normalised(pixels: np.ndarray) -> Tensor:
    tiles = torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).float() / 255
    return (tiles - torch.tensor(ENCODER.mean).view(3, 1, 1)) / torch.tensor(ENCODER.std).view(3, 1, 1)


def test_tiles_are_those_asked_for_whether_they_were_prefetched_or_not() -> None:
    parts = list(np.random.default_rng(1).permutation(TILES).astype(np.int64).reshape(8, 5))
    pairs = _pairs()
    pairs.prefetch(parts, 0)
    for asked in (*parts[:3], parts[6], *parts[3:], parts[0]):
        tiles, expression = pairs.at(asked)
        torch.testing.assert_close(tiles, _normalised(PIXELS[asked]))
        assert expression[:, 0].tolist() == asked.tolist()


def test_a_turned_tile_is_one_of_its_eight_turns_and_reflections_and_each_of_them_comes() -> None:
    torch.manual_seed(0)
    tiles, _ = _pairs(augment=True).at(np.arange(TILES))
    seen = set()
    for tile, pixels in zip(tiles, PIXELS, strict=True):
        ways = {
            (turn, flip): np.rot90(pixels[:, ::-1] if flip else pixels, turn) for turn in range(4) for flip in (0, 1)
        }
        (way,) = [key for key, one in ways.items() if torch.allclose(tile, _normalised(one[None])[0], atol=1e-5)]
        seen.add(way)
    assert len(seen) == 8


def test_the_same_seed_turns_alike_and_a_set_is_not_written_over_by_the_next() -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        pairs = _pairs(augment=True)
        first, _ = pairs.at(np.arange(20))
        kept = first.clone()
        pairs.at(np.arange(20, 40))
        assert torch.equal(first, kept)
        found.append(first)
    assert torch.equal(found[0], found[1])
