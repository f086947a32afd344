"""Encode batches in order, with some under way on the device while the next ones are read."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol, TypeAlias, runtime_checkable

from raystp.cluster.streams.units import Encoded, Pixels, ReadTiles

AHEAD = 2
"""Batches under way while the next is read; their rows wait in the device's memory."""

Start: TypeAlias = Callable[[Pixels], Callable[[], Encoded]]
"""Begin to encode tiles; return a function that waits for the result."""


@runtime_checkable
class StartsEarly(Protocol):
    """An encoder that computes while the next tiles are read."""

    def start(self, tiles: Pixels) -> Callable[[], Encoded]:
        """Begin to encode; return a function that waits for the result. `tiles` may be overwritten at once."""


def starter(encode: Callable[[Pixels], Encoded]) -> Start:
    """Return the `start` of an encoder; one without it computes at once."""
    if isinstance(encode, StartsEarly):
        return encode.start

    def start(tiles: Pixels) -> Callable[[], Encoded]:
        encoded = encode(tiles)
        return lambda: encoded

    return start


def encode_ahead(batches: Iterable[ReadTiles], start: Start) -> Iterator[tuple[Encoded, Mapping[int, str]]]:
    """Yield what is stored of each batch, and the reasons of its failed tiles, in the order of the batches.

    Raises the error of a batch when its result is due, so after up to `AHEAD` later batches were read.
    """
    under_way: deque[tuple[Callable[[], Encoded], Mapping[int, str]]] = deque()
    for tiles in batches:
        under_way.append((start(tiles.pixels), tiles.failed))
        if len(under_way) > AHEAD:
            finish, failed = under_way.popleft()
            yield finish(), failed
    for finish, failed in under_way:
        yield finish(), failed
