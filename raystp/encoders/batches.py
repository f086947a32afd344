"""How many tiles go through a network at once: given, or found by doubling until the device's memory is full.

Out of memory is no failure: the batch is halved and the same tiles are tried again, down to one.
"""

import weakref
from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from raystp.errors import EncoderError

Batch = int | Literal["fit"] | None
"""Tiles in one forward pass: a number, `fit` for as many as the device holds, None for `BATCH`."""

BATCH = 32
"""Tiles in one forward pass where the caller names no number: 19 MB of pixels at 224 px. A GPU wants more."""

BOUND = 1024
"""Where doubling stops in any case: beyond, a pass is no faster per tile."""

CPU_BATCH = 64
"""What `fit` means on a CPU, which never says beforehand that its memory will not do."""

_FOUND: "weakref.WeakKeyDictionary[nn.Module, dict[tuple[str, str], int]]" = weakref.WeakKeyDictionary()


def check(batch: Batch) -> None:
    """Raise EncoderError where a batch holds no tile."""
    if isinstance(batch, int) and batch < 1:
        msg = f"a batch of {batch} tiles holds none: give 1 or more, `fit`, or None for {BATCH}"
        raise EncoderError(msg)


def size(batch: Batch, network: nn.Module, device: torch.device, *, precision: str, fits: Callable[[int], None]) -> int:
    """Return the number of tiles in one pass; `fits(n)` passes n tiles and runs out of memory where it must.

    What was found for a network, device and precision is remembered as long as the network lives.
    """
    if batch is None:
        return BATCH
    if batch != "fit":
        return batch
    if device.type == "cpu":
        return CPU_BATCH
    found = _FOUND.setdefault(network, {})
    key = (str(device), precision)
    if key not in found:
        found[key] = _doubled(BOUND, device, fits)
    return found[key]


def remember(network: nn.Module, device: torch.device, precision: str, tiles: int) -> None:
    """Note that no more than `tiles` fitted after all, for the next call with `fit`."""
    found = _FOUND.get(network, {})
    key = (str(device), precision)
    if key in found:
        found[key] = min(found[key], tiles)


def halved(tiles: int, device: torch.device, encoder: str) -> int:
    """Return half of a batch that did not fit, its memory given back; raises EncoderError where one tile does not."""
    _give_back(device)
    if tiles == 1:
        msg = f"encoder '{encoder}' does not fit the memory of {device} with a single tile: free it, or use another"
        raise EncoderError(msg)
    return tiles // 2


def _doubled(bound: int, device: torch.device, fits: Callable[[int], None]) -> int:
    tiles = 1
    while tiles < bound and _runs(fits, min(2 * tiles, bound)):
        tiles = min(2 * tiles, bound)
    _give_back(device)
    return tiles


def _runs(fits: Callable[[int], None], tiles: int) -> bool:
    try:
        fits(tiles)
    except torch.OutOfMemoryError:
        return False
    return True


def _give_back(device: torch.device) -> None:
    """Hand unused memory back; never while an error is handled, whose frames still hold it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
