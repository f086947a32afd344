"""Copies between the host and an encoder's device: tiles to it, rows back.

On a CUDA device both run beside the computation. Tiles go through two pinned buffers in turn, on a stream of their own,
while the batch before them is computed. Rows return on a second stream. The host waits for nothing but the copy two
batches ago, and for rows when they are needed. On any other device copies are direct.

Events order all uses of a buffer: the upload waits until the batch before last has read it, the computation waits for
the upload, and the host writes to a pinned buffer once its last upload is complete. torch's allocators order the rest:
a block of device memory is reused on the stream that allocated it, a pinned block after the copies that use it
(PyTorch's "CUDA semantics").
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8

Tiles = UInt8[np.ndarray, "tile pixel pixel 3"]
Rows = Float[np.ndarray, "tile row"]

SLOTS = 2
"""Buffers that tiles go through: one is filled while the other is read."""


@runtime_checkable
class Transfer(Protocol):
    """Tiles to a device, and rows back."""

    def sent(self, tiles: Tiles) -> AbstractContextManager[UInt8[torch.Tensor, "tile pixel pixel 3"]]:
        """Give the tiles on the device, to be read inside the context only. They are not used afterwards."""
        ...

    def fetched(self, rows: Float[torch.Tensor, "tile row"]) -> Callable[[], Rows]:
        """Begin to copy rows to the host; return a function that waits for them."""
        ...


def transfer_to(device: torch.device) -> Transfer:
    """Return the fastest transfer for a device."""
    return OverlappedTransfer(CudaCopies(device)) if device.type == "cuda" else DirectTransfer(device)


@dataclass(frozen=True)
class DirectTransfer:
    """Copies that are complete when the call returns; on a CPU there are none."""

    device: torch.device

    @contextlib.contextmanager
    def sent(self, tiles: Tiles) -> Iterator[UInt8[torch.Tensor, "tile pixel pixel 3"]]:
        """Give the tiles on the device; on a CPU they share the memory of `tiles` where torch accepts it."""
        yield as_tensor(tiles).to(self.device)

    def fetched(self, rows: Float[torch.Tensor, "tile row"]) -> Callable[[], Rows]:
        """Copy rows to the host; return a function that gives them."""
        host: Rows = rows.cpu().numpy()
        return lambda: host


@runtime_checkable
class Event(Protocol):
    """A point in a stream, as `torch.cuda.Event`."""

    def record(self, stream: Any) -> None:
        """Set the event after all that was queued on a stream."""
        ...

    def synchronize(self) -> None:
        """Let the host wait for the event; one that was never recorded is complete."""
        ...


@runtime_checkable
class Stream(Protocol):
    """A queue of a device, as `torch.cuda.Stream`."""

    def wait_event(self, event: Any) -> None:
        """Let what is queued from now on wait for an event; the host does not wait."""
        ...


@runtime_checkable
class CopyEngine(Protocol):
    """The parts of `torch.cuda` that an `OverlappedTransfer` needs."""

    def stream(self) -> Stream:
        """Return a new stream."""
        ...

    def computing(self) -> Stream:
        """Return the stream that computes."""
        ...

    def on(self, stream: Any) -> AbstractContextManager[object]:
        """Run what is in the context on a stream."""
        ...

    def event(self) -> Event:
        """Return a new event, on which the host can wait without using a CPU."""
        ...

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return page-locked memory of the host, with any content."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return memory of the device, with any content."""
        ...


@dataclass(frozen=True)
class CudaCopies:
    """The `CopyEngine` of a CUDA device."""

    device: torch.device

    def stream(self) -> Stream:
        """Return a new stream."""
        return torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]  # untyped in torch

    def computing(self) -> Stream:
        """Return the device's current stream."""
        return torch.cuda.current_stream(self.device)

    def on(self, stream: Any) -> AbstractContextManager[object]:
        """Run what is in the context on a stream."""
        return torch.cuda.stream(stream)

    def event(self) -> Event:
        """Return a new event; readers of slides need the CPU that a busy wait would use."""
        return torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # untyped in torch

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return page-locked memory; torch keeps freed blocks, so only the first ones are slow."""
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return memory of the device."""
        return torch.empty(shape, dtype=dtype, device=self.device)


@dataclass(frozen=True, eq=False)
class _Slot:
    """A pinned buffer, its copy on the device, and the events that order their uses."""

    host: torch.Tensor
    device: torch.Tensor
    copied: Event
    """The last upload is complete."""
    used: Event
    """The computation has read the last upload."""


class OverlappedTransfer:
    """Copies beside the computation. Not thread-safe."""

    def __init__(self, engine: CopyEngine) -> None:
        self._engine = engine
        self._upload, self._download = engine.stream(), engine.stream()
        self._slots: list[_Slot] = []

    @contextlib.contextmanager
    def sent(self, tiles: Tiles) -> Iterator[UInt8[torch.Tensor, "tile pixel pixel 3"]]:
        """Give the tiles on the device; when the context begins, `tiles` may already be overwritten."""
        slot, count, computing = self._slot(tiles), len(tiles), self._engine.computing()
        slot.copied.synchronize()
        slot.host[:count].copy_(as_tensor(tiles))
        with self._engine.on(self._upload):
            self._upload.wait_event(slot.used)
            slot.device[:count].copy_(slot.host[:count], non_blocking=True)
            slot.copied.record(self._upload)
        computing.wait_event(slot.copied)
        try:
            yield slot.device[:count]
        finally:
            slot.used.record(computing)

    def fetched(self, rows: Float[torch.Tensor, "tile row"]) -> Callable[[], Rows]:
        """Begin to copy rows to the host; return a function that waits for this copy alone."""
        host = self._engine.pinned(tuple(rows.shape), rows.dtype)
        computed, arrived = self._engine.event(), self._engine.event()
        computed.record(self._engine.computing())
        with self._engine.on(self._download):
            self._download.wait_event(computed)
            host.copy_(rows, non_blocking=True)
            arrived.record(self._download)
        return _Fetch(host, rows, arrived)

    def _slot(self, tiles: Tiles) -> _Slot:
        """Return the slot whose last use is the oldest, or a new one if it is too small."""
        oldest = self._slots.pop(0) if len(self._slots) == SLOTS else None
        if oldest is None or len(oldest.host) < len(tiles) or oldest.host.shape[1:] != tiles.shape[1:]:
            oldest = None  # its memory is released before that of the new slot is allocated
            oldest = self._new_slot(tiles.shape)
        self._slots.append(oldest)
        return oldest

    def _new_slot(self, shape: tuple[int, ...]) -> _Slot:
        engine = self._engine
        with torch.inference_mode(mode=False):  # its tensors could not be written to outside that mode
            host, device = engine.pinned(shape, torch.uint8), engine.empty(shape, torch.uint8)
        slot = _Slot(host, device, engine.event(), engine.event())
        # The allocator may have given memory that queued computations still use.
        slot.used.record(engine.computing())
        return slot


@dataclass(frozen=True, eq=False)
class _Fetch:
    """Rows on their way to the host."""

    host: torch.Tensor
    rows: torch.Tensor
    """The rows on the device: kept until they are copied."""
    arrived: Event

    def __call__(self) -> Rows:
        """Return the rows, in memory that is not pinned."""
        self.arrived.synchronize()
        rows: Rows = self.host.clone().numpy()
        return rows


def as_tensor(tiles: Tiles) -> UInt8[torch.Tensor, "tile pixel pixel 3"]:
    """Return the tiles as a tensor; those that torch refuses are copied.

    It accepts neither read-only arrays (Arrow's and Ray's are) nor negative strides.
    """
    return torch.from_numpy(np.require(tiles, requirements=("C", "W")))
