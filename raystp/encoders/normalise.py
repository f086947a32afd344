"""Normalise pixels: uint8 tiles in, (tile / 255 - mean) / std out, in one multiply-add on the encoder's device.

Tiles are sent as uint8, a quarter of float32's bytes. On a CPU, one tile at a time is processed, so that it stays in
the cache, and a buffer is reused. torchvision's two steps per tile take longer, and longer still on whole batches. The
result is channels-last: tiles have this memory layout already, and convolutions are fastest in it.

The compiled loop takes .7 CPU-seconds to load, as many as it saves on 16,000 tiles. It is loaded after so many tiles,
and only used where it gives the same bits as torch.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from raystp.encoders.transfer import as_tensor

COMPILED_AFTER = 16_384
"""Tiles after which a CPU normalises with the compiled loop."""

Loop = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]
"""Write lines of uint8 * scale + shift to lines of float32: `(lines, scale, shift, out)`."""


@dataclass
class _Progress:
    """Tiles until now, and the compiled loop once it is used."""

    tiles: int = 0
    loop: Loop | None = None


@dataclass(frozen=True)
class PixelNormaliser:
    """Normalises tiles of one side for a network; built once, used for many batches.

    Each call overwrites the result of the previous call.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    side: int
    capacity: int
    """Most tiles in one call."""
    device: torch.device
    _scale: torch.Tensor = field(init=False)
    _shift: torch.Tensor = field(init=False)
    _buffer: torch.Tensor = field(init=False)
    _progress: _Progress = field(init=False, repr=False, compare=False, default_factory=_Progress)

    def __post_init__(self) -> None:
        # One line of a tile: red, green and blue in turn, `side` times.
        std = torch.tensor(self.std, device=self.device).repeat(self.side)
        mean = torch.tensor(self.mean, device=self.device).repeat(self.side)
        buffer = torch.empty((self.capacity * self.side, 3 * self.side), dtype=torch.float32, device=self.device)
        object.__setattr__(self, "_scale", 1 / (255 * std))
        object.__setattr__(self, "_shift", -mean / std)
        object.__setattr__(self, "_buffer", buffer)

    def __call__(self, tiles: UInt8[np.ndarray, "tile pixel pixel 3"]) -> Float32[torch.Tensor, "tile 3 pixel pixel"]:
        """Normalise up to `capacity` tiles of the host, as `normalise` does."""
        return self.normalise(as_tensor(tiles).to(self.device))

    def normalise(
        self, tiles: UInt8[torch.Tensor, "tile pixel pixel 3"], *, keep: bool = False
    ) -> Float32[torch.Tensor, "tile 3 pixel pixel"]:
        """Normalise up to `capacity` tiles of the device; with `keep` any number, to memory of their own.

        The result is an NCHW view of memory in the order of the tiles (NHWC).
        """
        pixels = tiles.reshape(-1, 3 * self.side)
        kept = torch.empty(pixels.shape, dtype=torch.float32, device=self.device) if keep else self._buffer
        normalised = kept[: len(pixels)]
        if (loop := self._compiled(len(tiles))) is not None:
            loop(pixels.numpy(), self._scale.numpy(), self._shift.numpy(), normalised.numpy())
            return self._as_nchw(normalised)
        lines = self.side if self.device.type == "cpu" else max(1, len(pixels))
        for target, source in zip(torch.split(normalised, lines), torch.split(pixels, lines), strict=True):
            torch.addcmul(self._shift, source, self._scale, out=target)
        return self._as_nchw(normalised)

    def _compiled(self, tiles: int) -> Loop | None:
        """Return the compiled loop, on a CPU, once enough tiles were normalised and if it gives torch's bits."""
        if self.device.type != "cpu":
            return None
        progress, before = self._progress, self._progress.tiles
        progress.tiles += tiles
        if before < COMPILED_AFTER <= progress.tiles:
            from raystp.encoders.normalise_loop import compiled_loop  # noqa: PLC0415 -- numba takes a while to import

            progress.loop = compiled_loop(self._scale, self._shift)
        return progress.loop

    def whole_buffer(self) -> Float32[torch.Tensor, "tile 3 pixel pixel"]:
        """Return the buffer of `capacity` tiles: the result of the last call, followed by older tiles."""
        return self._as_nchw(self._buffer)

    def _as_nchw(self, lines: torch.Tensor) -> torch.Tensor:
        return lines.view(-1, self.side, self.side, 3).permute(0, 3, 1, 2)
