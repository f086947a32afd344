"""Pixels from readers apart: the sets that were asked for, in their order, whatever the number of readers."""

import numpy as np
import pytest
from jaxtyping import Int64, UInt8

from raystp.cluster.streams.pixels import ReaderPool, pixel_stream

SIDE = 4


def _read(rows: Int64[np.ndarray, "row"]) -> UInt8[np.ndarray, "row pixel pixel 3"]:
    """Every pixel is the row's own number."""
    return np.broadcast_to(rows.astype(np.uint8)[:, None, None, None], (len(rows), SIDE, SIDE, 3)).copy()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("readers", [1, 2])
def test_any_number_of_readers_brings_the_sets_in_their_order(readers: int) -> None:
    order = np.random.default_rng(0).permutation(250).astype(np.int64)
    sets = [order[start : start + 32] for start in range(0, 250, 32)]
    found = list(pixel_stream(_read, sets, ReaderPool(readers, cpus=0.5)))
    assert [len(pixels) for pixels in found] == [len(rows) for rows in sets]
    for pixels, rows in zip(found, sets, strict=True):
        np.testing.assert_array_equal(pixels.numpy(), _read(rows))
