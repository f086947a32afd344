"""An encoder and its inference: uint8 tiles in, float32 rows out.

Tiles are sent to the device as uint8 (transfer.py) and normalised there (normalise.py). The number of tiles per forward
pass is given or found (batches.py). Precision changes the result. The batch, the memory layout of the weights and
torch.compile do not: they change a float32 row by less than 1e-5.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import nn

from raystp.encoders import batches
from raystp.encoders.batches import Batch
from raystp.encoders.normalise import PixelNormaliser
from raystp.encoders.transfer import Rows, Tiles, Transfer, transfer_to
from raystp.errors import EncoderError
from raystp.units import MicronsPerPixel, TilePixels

Precision = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class EncoderSpec:
    """An encoder's registry name, and where its weights come from.

    Raises EncoderError for two sources of weights at once, and for a digest of random weights.
    """

    name: str
    weights: str | None = None
    """Path or URI of a weights file: .safetensors, or an older .bin, .pt or .pth that holds only tensors."""
    sha256: str | None = None
    """Expected digest of this file, or of the hub's file where none is given."""
    random: bool = False
    """Random weights: a control that must be requested, never a fallback."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.weights is not None and self.random:
            msg = f"encoder '{self.name}' has both random weights and the file {self.weights}: remove one of them"
            raise EncoderError(msg)
        if self.random and self.sha256 is not None:
            msg = f"encoder '{self.name}' has random weights and the digest {self.sha256}: remove one of them"
            raise EncoderError(msg)


@dataclass(frozen=True)
class EncoderDescription:
    """What is known of an encoder before it is built: enough for a fingerprint and a table schema."""

    identity: str
    """Its weights: a file's sha256, `seed:<n>`, `random:<seed>`, or those of the hub: `hub:<model>:<tag>` for timm's,
    `hub:<owner>/<name>@<revision>` for others."""
    dim: int
    tile_px: TilePixels
    mpp: tuple[MicronsPerPixel, ...] = ()
    """um/px of the tiles it was trained on; empty where it is unknown, as for photographs."""


@dataclass(frozen=True, eq=False)
class Encoder:
    """A network and the tiles it expects.

    A fully convolutional network accepts other tile sizes too: `dataclasses.replace(encoder, tile_px=...)`.
    """

    name: str
    network: nn.Module
    """From normalised float NCHW to (N, dim)."""
    dim: int
    tile_px: TilePixels
    """Side of its tiles."""
    mean: tuple[float, float, float]
    """Mean of red, green and blue, for pixels in [0, 1]."""
    std: tuple[float, float, float]
    digest: str
    """sha256 of the weights file, or of the state dict where no file was read."""


@dataclass(frozen=True)
class InferenceOptions:
    """Options of the forward passes; they change a result by rounding only."""

    channels_last: bool = False
    """Store weights in channels-last order, like the pixels: faster on a GPU, for convolutional networks."""
    compiler: str | None = None
    """Backend of torch.compile, say `inductor`: takes a minute once, then passes are faster on a GPU."""
    half_rows: bool = False
    """Return rows as float16, rounded on the device: half of the bytes are copied back."""


DEFAULT_OPTIONS = InferenceOptions()


def encode(
    encoder: Encoder,
    tiles: UInt8[np.ndarray, "tile pixel pixel 3"],
    *,
    device: str,
    precision: Precision = "float32",
    batch: Batch = None,
    options: InferenceOptions = DEFAULT_OPTIONS,
) -> Float[np.ndarray, "tile dim"]:
    """Return the encoder's row for each RGB tile, in the order of the tiles.

    Moves the network to `device` and leaves it there in eval mode, with the memory layout and compilation of `options`.
    Its weights keep their values. float16 and bfloat16 compute under autocast, float32 without TF32. `batch` is the
    number of tiles in one forward pass. It is halved where the device runs out of memory.

    Raises EncoderError for tiles of another size than the encoder's, and for rows of another length than `dim` or with
    nan or infinity. Raises it too where not even one tile fits into the device's memory.
    """
    return BatchEncoder(encoder, device=device, precision=precision, batch=batch, options=options)(tiles)


def stored_precision(precision: Precision) -> Literal["float32", "float16"]:
    """Return the precision of stored vectors. Arrow has no bfloat16; float16 represents all its digits."""
    return "float32" if precision == "float32" else "float16"


class BatchEncoder:
    """Like `encode`, for many calls: buffers are kept between calls. Not thread-safe."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        device: str,
        precision: Precision = "float32",
        batch: Batch = None,
        options: InferenceOptions = DEFAULT_OPTIONS,
    ) -> None:
        batches.check_batch(batch)
        self._encoder, self._precision, self._batch = encoder, precision, batch
        self._dtype = torch.float16 if options.half_rows else torch.float32
        target = torch.device(device)
        self._transfer = transfer_to(target)
        self._forward = _ForwardPass(encoder, target, options, self._transfer)

    def __call__(self, tiles: UInt8[np.ndarray, "tile pixel pixel 3"]) -> Float[np.ndarray, "tile dim"]:
        """Return the rows of `encode`; raises the same errors."""
        return self.start(tiles)()

    def start(self, tiles: Tiles) -> Callable[[], Rows]:
        """Begin to encode; return a function that waits for the rows of these tiles, and raises for nan and infinity.

        On a GPU this returns before the rows are computed, so that the next tiles are read and sent meanwhile. The
        memory of `tiles` may be used again at once. Raises the other errors of `encode`.
        """
        encoder, forward, precision = self._encoder, self._forward, self._precision
        _check_tiles(encoder, tiles)
        with torch.inference_mode(), _precision_context(forward.device, precision):
            step = batches.resolve_batch(
                self._batch, encoder.network, forward.device, precision=precision, try_pass=forward.pass_black_tiles
            )
            rows, fitted = forward.rows(tiles, step)
            fetch = self._transfer.fetched(rows.to(self._dtype))
        if fitted < step:
            batches.lower_fitted(encoder.network, forward.device, precision, fitted)
        return lambda: _check_rows(encoder, fetch(), precision)


class _ForwardPass:
    """A network on its device, and the buffer of its input."""

    def __init__(self, encoder: Encoder, device: torch.device, options: InferenceOptions, transfer: Transfer) -> None:
        self.device = device
        self._encoder, self._transfer = encoder, transfer
        self._normaliser: PixelNormaliser | None = None
        self._most = 0  # tiles of the largest call so far
        # Outside inference mode: parameters moved in inference mode could never be trained again.
        self._network = encoder.network.to(device).eval()
        if options.channels_last:
            self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # absent from torch's types
        if options.compiler is not None and self._network._compiled_call_impl is None:
            self._network.compile(backend=options.compiler, dynamic=False)
        # A compiled network is compiled again for each batch size, so it gets full batches only.
        self._full_batches = options.compiler is not None

    def rows(self, tiles: Tiles, step: int) -> tuple[Float[torch.Tensor, "tile dim"], int]:
        """Return a float32 row per tile, on the device, and the tiles per pass that fitted: `step` or fewer."""
        rows = torch.empty((len(tiles), self._encoder.dim), dtype=torch.float32, device=self.device)
        self._most, start = max(self._most, len(tiles)), 0
        while start < len(tiles):
            part = tiles[start : start + step]
            # The last call of a unit is small: its passes use a part of the same buffer.
            capacity = min(step, self._most)
            outputs = self._try_pass(part, capacity)
            if outputs is None:
                self._normaliser = None  # its buffer is released before the batch is halved
                step = batches.halve(capacity, self.device, self._encoder.name)
                continue
            rows[start : start + step].copy_(outputs)
            start += step
        return rows, step

    def pass_black_tiles(self, count: int) -> None:
        """Pass `count` black tiles; raises torch.OutOfMemoryError where they do not fit."""
        side = self._encoder.tile_px
        tiles = torch.zeros((count, side, side, 3), dtype=torch.uint8, device=self.device)
        self._network(self._normalised(tiles, count))

    def _try_pass(self, part: Tiles, capacity: int) -> Float[torch.Tensor, "tile dim"] | None:
        """Return a row for each of these tiles, or None where memory was too small."""
        try:
            with self._transfer.sent(part) as tiles:
                pixels = self._normalised(tiles, capacity)
            outputs: torch.Tensor = self._network(pixels)
        except torch.OutOfMemoryError:
            return None
        count = len(pixels)
        if outputs.shape != (count, self._encoder.dim):
            msg = (
                f"encoder '{self._encoder.name}' returned {tuple(outputs.shape)} for {count} tiles, expected "
                f"({count}, {self._encoder.dim})"
            )
            raise EncoderError(msg)
        return outputs[: len(part)]

    def _normalised(self, tiles: UInt8[torch.Tensor, "tile pixel pixel 3"], capacity: int) -> torch.Tensor:
        """Return the network's input: the tiles of the device, or the whole buffer that holds them first."""
        if self._normaliser is None or self._normaliser.capacity != capacity:
            encoder, self._normaliser = self._encoder, None  # the old buffer is released before a new one is allocated
            self._normaliser = PixelNormaliser(
                encoder.mean, encoder.std, side=encoder.tile_px, capacity=capacity, device=self.device
            )
        pixels = self._normaliser.normalise(tiles)
        return self._normaliser.whole_buffer() if self._full_batches else pixels


def _precision_context(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[None]:
    if precision != "float32":
        return torch.autocast(device.type, dtype=getattr(torch, precision))
    # cuDNN's convolutions use TF32 by default, whose 10 bits of mantissa are not float32.
    benchmark = torch.backends.cudnn.benchmark
    return torch.backends.cudnn.flags(enabled=True, benchmark=benchmark, allow_tf32=False)


def _check_tiles(encoder: Encoder, tiles: np.ndarray) -> None:
    if tiles.shape[1:] != (encoder.tile_px, encoder.tile_px, 3):
        shape = " x ".join(str(n) for n in tiles.shape[1:])
        msg = (
            f"encoder '{encoder.name}' expects RGB tiles of {encoder.tile_px} x {encoder.tile_px} px, got {shape}: "
            f"read them at {encoder.tile_px} px"
        )
        raise EncoderError(msg)


def _check_rows(
    encoder: Encoder, rows: Float[np.ndarray, "tile dim"], precision: Precision
) -> Float[np.ndarray, "tile dim"]:
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        hint = "use float32" if precision != "float32" else "its weights are damaged, or it expects other pixels"
        msg = (
            f"encoder '{encoder.name}' returned nan or infinity for {len(bad)} of {len(rows)} tiles in {precision} "
            f"(the first is tile {bad[0]}, counted from 0): {hint}"
        )
        raise EncoderError(msg)
    return rows
