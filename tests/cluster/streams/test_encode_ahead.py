"""Laws of an encoder that starts early: results in order, a bounded number of batches under way, no lost fault."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from raystp.cluster.streams.encode_ahead import AHEAD, StartsEarly, encode_ahead, starter
from raystp.cluster.streams.units import Encoded, Pixels, ReadTiles
from raystp.errors import EncoderError

NUMBERS = range(0, 20, 4)
"""The first tile of each batch of 4."""
FAULT = 8


@dataclass
class Early:
    """An encoder that computes a batch only when its result is due; a tile's vector is its number."""

    log: list[tuple[str, int]] = field(default_factory=list)
    fails: bool = False

    def __call__(self, tiles: Pixels) -> Encoded:
        return self.start(tiles)()

    def start(self, tiles: Pixels) -> Callable[[], Encoded]:
        first, rows = int(tiles[0, 0, 0, 0]), tiles[:, 0, 0, :1].astype(np.float32)
        self.log.append(("start", first))

        def finish() -> Encoded:
            self.log.append(("finish", first))
            if self.fails and first == FAULT:
                msg = "tile 8 gives nan"
                raise EncoderError(msg)
            return (rows,)

        return finish


def batches(log: list[tuple[str, int]]) -> Iterator[ReadTiles]:
    for first in NUMBERS:
        log.append(("read", first))
        pixels = np.arange(first, first + 4, dtype=np.uint8)[:, None, None, None]
        yield ReadTiles(np.broadcast_to(pixels, (4, 2, 2, 3)), {first + 1: "damaged"})


@pytest.mark.parametrize("early", [True, False], ids=["early", "at once"])
def test_results_and_reasons_are_in_the_order_of_the_batches(early: bool) -> None:  # noqa: FBT001 -- pytest's
    encoder = Early()
    encode: Callable[[Pixels], Encoded] = encoder if early else encoder.__call__
    assert isinstance(encode, StartsEarly) == early
    found = list(encode_ahead(batches([]), starter(encode)))
    np.testing.assert_array_equal(np.concatenate([rows for (rows,), _ in found]).ravel(), np.arange(20))
    assert [list(reasons) for _, reasons in found] == [[first + 1] for first in NUMBERS]


def test_later_batches_are_read_and_started_before_a_result_is_due() -> None:
    encoder = Early()
    list(encode_ahead(batches(encoder.log), encoder.start))
    began = [number for event, number in encoder.log if event == "start"]
    for position, first in enumerate(NUMBERS):
        before = encoder.log[: encoder.log.index(("finish", first))]
        started = [number for event, number in before if event == "start"]
        assert started == began[: position + 1 + AHEAD]  # no more, and no fewer until the last batch


def test_a_fault_that_is_found_late_is_raised_by_its_batch() -> None:
    results = encode_ahead(batches([]), Early(fails=True).start)
    assert [next(results)[0][0][0, 0], next(results)[0][0][0, 0]] == [0, 4]
    with pytest.raises(EncoderError, match="tile 8 gives nan"):
        next(results)
