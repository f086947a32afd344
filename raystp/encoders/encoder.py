"""An encoder, and the one way to use it: uint8 tiles in, float32 rows out.

Tiles travel to the device as uint8 and are normalised there (normalise.py); how many go through the network at once is
given, or found (batches.py). Precision is part of what is computed; the batch, the layout of the weights and
torch.compile are how, and move a float32 row by less than 1e-5.
"""

import contextlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import nn

from raystp.encoders import batches
from raystp.encoders.batches import Batch
from raystp.encoders.normalise import PixelNormaliser
from raystp.errors import EncoderError
from raystp.units import MicronsPerPixel, TilePixels

Precision = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class EncoderSpec:
    """What a config says of an encoder: its registry name, and where its weights come from.

    Raises EncoderError where two sources of weights are named at once, or a digest of random weights.
    """

    name: str
    weights: str | None = None
    """Path or URI of a file that the user has: .safetensors, or an older .bin, .pt or .pth of tensors alone."""
    sha256: str | None = None
    """The digest that this file must have, or the hub's where no file is named."""
    random: bool = False
    """Random weights, asked for by name: a control, never a fallback."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.weights is not None and self.random:
            msg = f"encoder '{self.name}' has both random weights and the file {self.weights}: leave one of them out"
            raise EncoderError(msg)
        if self.random and self.sha256 is not None:
            msg = f"encoder '{self.name}' names the digest {self.sha256} of random weights: leave one of them out"
            raise EncoderError(msg)


@dataclass(frozen=True)
class EncoderDescription:
    """What is known of an encoder before it is built: enough to name the work and lay out its table."""

    identity: str
    """Which weights: a file's sha256, `seed:<n>`, `random:<seed>`, or the hub's: `hub:<model>:<tag>` for timm's,
    `hub:<owner>/<name>@<revision>` for others."""
    dim: int
    pixels: TilePixels
    mpp: tuple[MicronsPerPixel, ...] = ()
    """um/px of the tiles it was trained on; empty where nobody says, as for photographs."""


@dataclass(frozen=True, eq=False)
class Encoder:
    """A network with what it expects of its input.

    A fully convolutional one serves tiles of another side too, by `dataclasses.replace(encoder, pixels=...)`.
    """

    name: str
    network: nn.Module
    """Normalised float NCHW to (N, dim)."""
    dim: int
    pixels: TilePixels
    """Side of the tiles it expects."""
    mean: tuple[float, float, float]
    """Of red, green and blue, on pixels in [0, 1]."""
    std: tuple[float, float, float]
    digest: str
    """sha256 of the weights file, or of the state dict where no file was read."""


@dataclass(frozen=True)
class InferenceOptions:
    """How passes are run; by default as plainly as torch does."""

    channels_last: bool = False
    """Lay convolutions' weights out as the pixels lie: faster on a GPU's tensor cores, for convolutional networks."""
    compiler: str | None = None
    """torch.compile's backend, say `inductor`: a minute once, then faster passes on a GPU."""


PLAIN = InferenceOptions()


def encode(
    encoder: Encoder,
    tiles: UInt8[np.ndarray, "tile pixel pixel 3"],
    *,
    device: str,
    precision: Precision = "float32",
    batch: Batch = None,
    ways: InferenceOptions = PLAIN,
) -> Float32[np.ndarray, "tile dim"]:
    """Return the encoder's row for each RGB tile, in the order of the tiles.

    Moves the network to `device` and leaves it there in eval mode, laid out and compiled as `ways` says; its weights
    keep their values. float16 and bfloat16 compute under autocast, float32 without TF32. `batch` is the number of
    tiles in one forward pass; where the device runs out of memory it is halved, whatever was asked for.

    Raises:
        EncoderError: tiles of another side than the encoder's, rows of another length than `dim`, nan or infinity, or
            a device on which not even one tile fits.
    """
    return BatchEncoder(encoder, device=device, precision=precision, batch=batch, ways=ways)(tiles)


class BatchEncoder:
    """`encode`, made ready for many calls: its buffers are kept from one to the next. One thread at a time."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        device: str,
        precision: Precision = "float32",
        batch: Batch = None,
        ways: InferenceOptions = PLAIN,
    ) -> None:
        batches.check(batch)
        self._encoder, self._precision, self._batch = encoder, precision, batch
        self._passes = _Passes(encoder, torch.device(device), ways)

    def __call__(self, tiles: UInt8[np.ndarray, "tile pixel pixel 3"]) -> Float32[np.ndarray, "tile dim"]:
        """Return what `encode` returns, and raise what it raises."""
        encoder, passes, precision = self._encoder, self._passes, self._precision
        _check_tiles(encoder, tiles)
        with torch.inference_mode(), _arithmetic(passes.device, precision):
            wanted = batches.size(self._batch, encoder.network, passes.device, precision=precision, fits=passes.blank)
            rows, fitted = passes.rows(tiles, wanted)
        if fitted < wanted:
            batches.remember(encoder.network, passes.device, precision, fitted)
        return _checked_rows(encoder, rows.cpu().numpy(), precision)


class _Passes:
    """A network on its device, and passes of tiles through it."""

    def __init__(self, encoder: Encoder, device: torch.device, ways: InferenceOptions) -> None:
        self.device = device
        self._encoder = encoder
        self._normaliser: PixelNormaliser | None = None
        # Outside inference mode, where moved parameters would be unfit for training ever after.
        network: Any = encoder.network.to(device).eval()
        if ways.channels_last:
            network = network.to(memory_format=torch.channels_last)
        if ways.compiler is not None and network._compiled_call_impl is None:
            network.compile(backend=ways.compiler)
        self._network: nn.Module = network
        # A compiled network is compiled again for a batch of another size: it is given full ones only.
        self._whole = ways.compiler is not None

    def rows(
        self, tiles: UInt8[np.ndarray, "tile pixel pixel 3"], step: int
    ) -> tuple[Float32[torch.Tensor, "tile dim"], int]:
        """Return a row per tile, on the device, and how many tiles at once fitted: `step`, or less."""
        rows = torch.empty((len(tiles), self._encoder.dim), dtype=torch.float32, device=self.device)
        start = 0
        while start < len(tiles):
            part = tiles[start : start + step]
            room = step if self._whole else min(step, len(tiles))
            outputs = self._outputs(part, room)
            if outputs is None:
                self._normaliser = None  # its buffer goes first
                step = batches.halved(room, self.device, self._encoder.name)
                continue
            rows[start : start + step].copy_(outputs)
            start += step
        return rows, step

    def blank(self, count: int) -> None:
        """Pass `count` black tiles; raises torch.OutOfMemoryError where they do not fit."""
        side = self._encoder.pixels
        self._passed(np.zeros((count, side, side, 3), dtype=np.uint8), count)

    def _outputs(
        self, part: UInt8[np.ndarray, "tile pixel pixel 3"], room: int
    ) -> Float[torch.Tensor, "tile dim"] | None:
        """Return a row for each of these tiles, or None where the memory did not suffice."""
        try:
            outputs, given = self._passed(part, room)
        except torch.OutOfMemoryError:
            return None
        if outputs.shape != (given, self._encoder.dim):
            seen = f"{tuple(outputs.shape)} for {given} tiles"
            wanted = f"one row of {self._encoder.dim} values each was wanted"
            msg = f"encoder '{self._encoder.name}' gave {seen}, where {wanted}"
            raise EncoderError(msg)
        return outputs[: len(part)]

    def _passed(self, part: UInt8[np.ndarray, "tile pixel pixel 3"], room: int) -> tuple[torch.Tensor, int]:
        """Pass tiles through the network; return what it gave, and for how many tiles."""
        if self._normaliser is None or self._normaliser.room != room:
            encoder, self._normaliser = self._encoder, None
            self._normaliser = PixelNormaliser(
                encoder.mean, encoder.std, side=encoder.pixels, room=room, device=self.device
            )
        pixels = self._normaliser(part)
        pixels = self._normaliser.whole() if self._whole else pixels
        return self._network(pixels), len(pixels)


def _arithmetic(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[None]:
    if precision != "float32":
        return torch.autocast(device.type, dtype=getattr(torch, precision))
    # cuDNN's convolutions use TF32 unless told otherwise: 10 bits of mantissa are not float32.
    benchmark = torch.backends.cudnn.benchmark
    return torch.backends.cudnn.flags(enabled=True, benchmark=benchmark, allow_tf32=False)


def _check_tiles(encoder: Encoder, tiles: np.ndarray) -> None:
    if tiles.shape[1:] != (encoder.pixels, encoder.pixels, 3):
        seen = " x ".join(str(n) for n in tiles.shape[1:])
        msg = (
            f"encoder '{encoder.name}' takes RGB tiles of {encoder.pixels} x {encoder.pixels} px, these are {seen}: "
            f"read them at {encoder.pixels} px"
        )
        raise EncoderError(msg)


def _checked_rows(
    encoder: Encoder, rows: Float32[np.ndarray, "tile dim"], precision: Precision
) -> Float32[np.ndarray, "tile dim"]:
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        way = "try float32" if precision != "float32" else "its weights are damaged, or it was trained on other pixels"
        msg = (
            f"encoder '{encoder.name}' gave nan or infinity for {len(bad)} of {len(rows)} tiles in {precision} "
            f"(the first is number {bad[0]}, counted from 0): {way}"
        )
        raise EncoderError(msg)
    return rows
