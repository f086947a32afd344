"""Tiles per forward pass: a given number, or doubled until the device's memory is full.

Running out of memory is not an error: the batch is halved and the same tiles are passed again, down to one tile.
"""

import weakref
from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from raystp.errors import EncoderError

Batch = int | Literal["fit"] | None
"""Tiles in one forward pass: a number, `fit` for as many as the device can hold, None for `DEFAULT_BATCH`."""

DEFAULT_BATCH = 32
"""Tiles in one forward pass without a given number: 19 MB of pixels at 224 px. A GPU needs more to be fast."""

MAX_BATCH = 1024
"""Upper limit of doubling: a larger pass is no faster per tile."""

CPU_BATCH = 64
"""Meaning of `fit` on a CPU, which does not report in advance that its memory is too small."""

_FITTED: "weakref.WeakKeyDictionary[nn.Module, dict[tuple[str, str], int]]" = weakref.WeakKeyDictionary()
"""Network -> (device, precision) -> batch found by doubling."""


def check_batch(batch: Batch) -> None:
    """Raise EncoderError for a batch without tiles."""
    if isinstance(batch, int) and batch < 1:
        msg = f"a batch needs at least one tile, got {batch}: give 1 or more, `fit`, or None for {DEFAULT_BATCH}"
        raise EncoderError(msg)


def resolve_batch(
    batch: Batch, network: nn.Module, device: torch.device, *, precision: str, try_pass: Callable[[int], None]
) -> int:
    """Return the number of tiles in one pass. `try_pass(n)` passes n tiles and raises OutOfMemoryError if too many.

    The number found for a network, device and precision is kept as long as the network exists.
    """
    if batch is None:
        return DEFAULT_BATCH
    if batch != "fit":
        return batch
    if device.type == "cpu":
        return CPU_BATCH
    fitted = _FITTED.setdefault(network, {})
    key = (str(device), precision)
    if key not in fitted:
        fitted[key] = _double(MAX_BATCH, device, try_pass)
    return fitted[key]


def lower_fitted(network: nn.Module, device: torch.device, precision: str, tiles: int) -> None:
    """Lower the batch that `fit` uses from now on: no more than `tiles` did fit."""
    fitted = _FITTED.get(network, {})
    key = (str(device), precision)
    if key in fitted:
        fitted[key] = min(fitted[key], tiles)


def halve(tiles: int, device: torch.device, encoder: str) -> int:
    """Release memory and return half of a batch that did not fit; raises EncoderError where one tile does not fit."""
    _release_memory(device)
    if tiles == 1:
        msg = (
            f"encoder '{encoder}' does not fit into the memory of {device} with a single tile: free memory on the "
            "device, or use a smaller encoder"
        )
        raise EncoderError(msg)
    return tiles // 2


def _double(limit: int, device: torch.device, try_pass: Callable[[int], None]) -> int:
    tiles = 1
    while tiles < limit and _fits(try_pass, min(2 * tiles, limit)):
        tiles = min(2 * tiles, limit)
    _release_memory(device)
    return tiles


def _fits(try_pass: Callable[[int], None], tiles: int) -> bool:
    try:
        try_pass(tiles)
    except torch.OutOfMemoryError:
        return False
    return True


def _release_memory(device: torch.device) -> None:
    """Release cached memory. Not to be called inside an `except` block, whose frames still hold the memory."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
