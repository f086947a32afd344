"""Separate pixel readers return the requested batches in order, whatever the number of readers."""

import numpy as np
import pytest
from jaxtyping import Int64, UInt8

from raystp.cluster.streams.pixels import ReaderPool, pixel_stream

TILE_PX = 4


def _read(rows: Int64[np.ndarray, "row"]) -> UInt8[np.ndarray, "row pixel pixel 3"]:
    """Return tiles whose pixels all equal the row's number."""
    return np.broadcast_to(rows.astype(np.uint8)[:, None, None, None], (len(rows), TILE_PX, TILE_PX, 3)).copy()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("readers", [1, 2])
def test_any_number_of_readers_returns_the_batches_in_order(readers: int) -> None:
    order = np.random.default_rng(0).permutation(250).astype(np.int64)
    batches = [order[start : start + 32] for start in range(0, 250, 32)]
    found = list(pixel_stream(_read, batches, ReaderPool(readers, cpus=0.5)))
    assert [len(pixels) for pixels in found] == [len(rows) for rows in batches]
    for pixels, rows in zip(found, batches, strict=True):
        np.testing.assert_array_equal(pixels.numpy(), _read(rows))
