"""Encoders of the GPU benchmark: published shapes with random weights, and the time that their passes take."""

import time
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from raystp.encoders.card import Card
from raystp.encoders.encoder import Encoder, EncoderSpec
from raystp.encoders.families import cards
from raystp.encoders.registry import CARDS, build
from raystp.units import TilePixels

QUICK_DEPTH, QUICK_PX = 1, TilePixels(56)
"""Blocks of the transformer, of 24, and the side of tiles with `quick`."""


def encoder_of(model: str, *, quick: bool) -> Encoder:
    """Return `uni_v2` or a model of timm, with random weights."""
    spec = EncoderSpec(model if model == "uni_v2" else f"timm:{model}", random=True)
    if not quick:
        return build(spec)
    encoder = build(spec) if model != "uni_v2" else cards.build(_shallow(CARDS[model]), spec)
    return replace(encoder, tile_px=QUICK_PX)


def _shallow(card: Card) -> Card:
    return replace(card, options=dict(card.options) | {"depth": QUICK_DEPTH})


def flops_of(encoder: Encoder) -> float:
    """Return the floating-point operations of one tile; the network stays on its device."""
    parameter = next(encoder.network.parameters())
    tile = torch.zeros((1, 3, encoder.tile_px, encoder.tile_px), device=parameter.device)
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        encoder.network.eval()(tile)
    return float(counter.get_total_flops())


def fused_attention(encoder: Encoder) -> tuple[int, int]:
    """Return how many of timm's attention layers use SDPA, and how many there are."""
    layers = [one.fused_attn for one in encoder.network.modules() if hasattr(one, "fused_attn")]
    return sum(map(bool, layers)), len(layers)


class Timed(nn.Module):
    """A network that measures how long the device is busy with it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._passes: list[tuple[Any, Any]] = []
        """Begin and end: events of the device, or seconds."""

    def forward(self, pixels: torch.Tensor) -> Any:
        """Return the network's output."""
        begin = _now(pixels.device)
        output = self.network(pixels)
        self._passes.append((begin, _now(pixels.device)))
        return output

    def busy_s(self) -> float:
        """Return the seconds of all passes since the last call; waits for the device."""
        passes, self._passes = self._passes, []
        if passes and not isinstance(passes[0][0], float):
            passes[-1][1].synchronize()
            return float(sum(begin.elapsed_time(end) for begin, end in passes)) / 1000
        return float(sum(end - begin for begin, end in passes))


def _now(device: torch.device) -> Any:
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # untyped in torch
    event.record(torch.cuda.current_stream(device))
    return event


def wait_for(device: str) -> None:
    """Wait for all that was queued on a device."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
